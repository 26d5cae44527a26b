"""A cache that takes over whole meshes, for tests that are not about what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from control.server.compile.delta import MeshDelta
from control.server.compile.mesh import CompiledMesh
from control.server.xds.cache import Cache, Change

T = TypeVar("T")

EMPTY = CompiledMesh({}, {}, {}, {}, (), frozenset())


class MeshCache(Cache):
    def __init__(self) -> None:
        super().__init__()
        self._shown = EMPTY

    def update(self, mesh: CompiledMesh) -> Change:
        """Difference from the mesh before."""
        before, self._shown = self._shown, mesh
        return self.apply(
            MeshDelta(
                workloads=_difference(before.workloads, mesh.workloads),
                services=_difference(before.services, mesh.services),
                policies=_difference(before.policies, mesh.policies),
                pods=_difference(before.pods, mesh.pods),
                namespaces=_difference(before.namespaces, mesh.namespaces),
            )
        )


def _difference(before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T | None]:
    gone = dict.fromkeys(before.keys() - after.keys())
    return {**gone, **{name: each for name, each in after.items() if before.get(name) != each}}
