"""Namespaces as rows: their mode, and what is in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.cli.mesh import MeshDump
from agent.cli.views.objects import policy_rows
from agent.cli.views.pages import Filter, Row, agent_pods

MODE_LABELS = ("tulle.io/dataplane-mode", "istio.io/dataplane-mode")


def namespace_rows(mesh: MeshDump) -> list[Row]:
    labels = mesh.labels.get("namespace") or {}
    rows = {name: _namespace(name, mode(found)) for name, found in labels.items()}
    agents: dict[tuple[str, str], Row] = {}
    for _, pod in agent_pods(mesh):
        agents[(pod["namespace"], pod["name"])] = pod
    control = {(pod["namespace"], pod["name"]): pod for pod in mesh.control.get("pods") or []}
    for key in sorted(agents.keys() | control.keys()):
        row = rows.setdefault(key[0], _namespace(key[0], "unknown"))
        row["pods"] += 1
        pod = agents.get(key) or {}
        row["captured"] += pod.get("state") == "captured"
        row["uncaptured_connections"] += pod.get("uncaptured_connections") or 0
    for policy in policy_rows(mesh, Filter()):
        if policy["namespace"] in rows:
            rows[policy["namespace"]]["policies"] += 1
    return [rows[name] for name in sorted(rows)]


def _namespace(name: str, how: str) -> Row:
    counts = ("pods", "captured", "uncaptured_connections", "policies")
    return {"name": name, "mode": how, **dict.fromkeys(counts, 0)}


def mode(labels: Mapping[str, str]) -> str:
    """The mode that the control plane applies: `none` under either label wins."""
    values = [str(labels[key]) for key in MODE_LABELS if key in labels]
    known = [mode for mode in ("none", "ambient") if mode in values]
    return (known or values or ["none"])[0]
