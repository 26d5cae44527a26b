"""The mesh's pages as every view reads them, and what a command's options select. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.cli.mesh import MeshDump
from agent.cli.selector import Requirement

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    namespace: str = ""  # empty: all
    labels: tuple[Requirement, ...] = ()  # all must hold
    name: str = ""

    def admits(self, mesh: MeshDump, row: Row) -> bool:
        if self.namespace and row.get("namespace") != self.namespace:
            return False
        if self.name and row.get("name") != self.name:
            return False
        known = (mesh.labels.get("pod") or {}).get(f"{row.get('namespace')}/{row.get('name')}", {})
        return all(one.holds(known) for one in self.labels)


def ztunnels(mesh: MeshDump) -> Iterator[tuple[str, Row]]:
    for node, parts in sorted(mesh.nodes.items()):
        if parts.get("ztunnel"):
            yield node, parts["ztunnel"]


def agent_pods(mesh: MeshDump) -> Iterator[tuple[str, Row]]:
    for node, parts in sorted(mesh.nodes.items()):
        for pod in (parts.get("agent") or {}).get("pods") or []:
            yield node, pod


def namespace_names(mesh: MeshDump) -> set[str]:
    """Every namespace that a page, a label or an object of this mesh names."""
    found = set(mesh.labels.get("namespace") or {})
    pages = [mesh.control, *(dump for _, dump in ztunnels(mesh))]
    pages += [{"pods": [pod for _, pod in agent_pods(mesh)]}]
    for page in pages:
        for kind in ("pods", "workloads", "services", "policies"):
            found |= {str(item.get("namespace") or "") for item in page.get(kind) or []}
    return found - {""}


def has_ztunnel(mesh: MeshDump, wanted: Filter) -> bool:
    """True when a ztunnel serves such a pod."""
    return any(
        wanted.admits(mesh, state.get("info") or {})
        for _, dump in ztunnels(mesh)
        for state in (dump.get("workloadState") or {}).values()
    )


def in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.get("namespace") or "", row.get("name") or ""))
