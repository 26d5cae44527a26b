"""The mesh as it is published now, as the leader's duties look at it; made once a change."""

from __future__ import annotations

from collections.abc import Mapping

from control.server.compile.mesh import CompiledMesh
from control.server.compile.pods import asks_for_mesh
from control.server.leader.conditions import Conditions, wanted_conditions
from control.server.leader.ledger import Target
from control.server.sources.problem import Problem
from control.server.xds.publish import Publisher


class Views:
    """`namespace` is that of the install."""

    def __init__(self, publisher: Publisher, namespace: str) -> None:
        self._publisher = publisher
        self._namespace = namespace
        self._made_of: tuple[CompiledMesh, tuple[Problem, ...]] | None = None
        self._conditions: Mapping[Target, Conditions] = {}
        self._namespaces: frozenset[str] = frozenset({namespace})

    def conditions(self) -> Mapping[Target, Conditions]:
        """Conditions of every policy."""
        self._look()
        return self._conditions

    def namespaces(self) -> frozenset[str]:
        """Those with pods of the mesh, or that ask for it, and our own."""
        self._look()
        return self._namespaces

    def _look(self) -> None:
        publisher = self._publisher
        mesh, problems = publisher.mesh, publisher.problems
        if self._made_of is not None and self._made_of[0] is mesh and self._made_of[1] is problems:
            return
        found = publisher.objects
        self._made_of = (mesh, problems)
        root = publisher.settings.root_namespace
        self._conditions = wanted_conditions(mesh, found, problems, root)
        self._namespaces = frozenset(
            {self._namespace}
            | {each.namespace for each in mesh.pods.values() if each.enrolled}
            | {each.meta.name for each in found.namespaces if asks_for_mesh(each)}
        )
