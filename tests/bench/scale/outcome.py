"""Figures of a run, the goals for them, and what others have published. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScaleFigure:
    """`pods` and `nodes` say for which mesh; `name` is one of NAMES."""

    name: str
    pods: int
    nodes: int
    value: float


NAMES: Mapping[str, tuple[str, str]] = {
    "ready_s": ("ready after a start", "s"),
    "ready_cpu_s": ("  CPU for that", "s"),
    "again_s": ("ready after a restart", "s"),
    "rss_mib": ("RSS without nodes", "MiB"),
    "change_cpu_ms": ("CPU of one pod's change", "ms"),
    "change_ms": ("  written until a node has it, median", "ms"),
    "policy_ms": ("policy written until a node has it", "ms"),
    "policy_after_ms": ("  at once after 2,000 pods changed", "ms"),
    "probe_ms": ("longest answer of the health page", "ms"),
    "probe_p99_ms": ("  p99", "ms"),
    "kube_ready_s": ("API server: ready after a start", "s"),
    "kube_rss_mib": ("API server: RSS without nodes", "MiB"),
    "kube_change_ms": ("API server: event until nodes have it, median", "ms"),
    "fresh_s": ("all nodes connect at once, last one fresh", "s"),
    "sync_mb": ("  bytes a node", "MB"),
    "broken": ("  streams that broke", ""),
    "fan_rss_mib": ("  RSS then", "MiB"),
    "fan_peak_mib": ("  RSS at most", "MiB"),
    "last_ms": ("one pod's change, last node has it, median", "ms"),
    "fan_cpu_ms": ("  CPU of that change", "ms"),
    "enrol_ms": ("200 pods of a node captured, told to a node", "ms"),
    "return_s": ("restart, all nodes back and told of a change", "s"),
    "return_mb": ("  bytes a node", "MB"),
    "return_peak_mib": ("  RSS at most", "MiB"),
}


@dataclass(frozen=True, slots=True)
class ScaleGoal:
    """At most `limit`, in meshes of at least that size and number of nodes."""

    name: str
    pods: int
    nodes: int
    limit: float


GOALS = (
    ScaleGoal("ready_s", 50_000, 0, 8.0),
    ScaleGoal("rss_mib", 50_000, 0, 350.0),
    ScaleGoal("change_cpu_ms", 1_000, 0, 5.0),
    ScaleGoal("policy_ms", 1_000, 0, 1000.0),
    ScaleGoal("policy_after_ms", 1_000, 0, 1000.0),
    ScaleGoal("probe_ms", 1_000, 0, 20.0),
    ScaleGoal("last_ms", 1_000, 500, 200.0),
    ScaleGoal("fresh_s", 1_000, 500, 20.0),
    ScaleGoal("fan_peak_mib", 1_000, 500, 700.0),
    ScaleGoal("broken", 1_000, 0, 0.0),
    ScaleGoal("enrol_ms", 1_000, 0, 1000.0),
    ScaleGoal("return_s", 1_000, 500, 8.0),
)
EXPONENT_GOAL = 0.1

# Measured by others, on other machines and for other meshes: marks to aim at, no race.
YARDSTICKS = (
    (
        "istiod (AKS add-on, asm-1-19): 25,000 sidecars in one replica with 32.1 GB and 15 CPUs;"
        " 15,000 with 22.2 GB while 31.2 a second change",
        "node D16 v3, 16 vCPU, 64 GB",
        "learn.microsoft.com/azure/aks/istio-scale",
    ),
    (
        "istiod 1.15: 1,000 services and 2,000 sidecars with 1 vCPU and 1.5 GB",
        "not said",
        "istio.io/v1.15/docs/ops/deployment/performance-and-scalability",
    ),
    (
        "Cilium: no central distributor; 50,000 pods on 1,000 nodes: 438 MiB an agent (573 at most,"
        " 10.5 KiB a pod), a policy in force within 600 ms",
        "nodes with 2 vCPU, 4 GB",
        "docs.cilium.io, operations/performance/scalability/report",
    ),
    (
        "Linkerd's destination controller: no figure with the size of its mesh was found",
        "",
        "",
    ),
)


def exponent(figures: Iterable[ScaleFigure], name: str) -> float | None:
    """Growth of a figure with the number of pods: 0 for none, 1 for as much (least squares of the
    logarithms)."""
    points = [
        (math.log(each.pods), math.log(each.value))
        for each in figures
        if each.name == name and each.value > 0
    ]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def missed(figures: Iterable[ScaleFigure]) -> list[str]:
    """Goals that a run did not meet, in words."""
    return [
        f"{NAMES[each.name][0].strip()}: {shown(each.value)} {NAMES[each.name][1]} "
        f"at {each.pods:,} pods, {each.nodes:,} nodes; goal {shown(goal.limit)}"
        for each in figures
        if (goal := goal_of(each)) is not None and each.value > goal.limit
    ]


def goal_of(figure: ScaleFigure) -> ScaleGoal | None:
    for each in GOALS:
        is_large = figure.pods >= each.pods and figure.nodes >= each.nodes
        if each.name == figure.name and is_large:
            return each
    return None


def table(figures: Sequence[ScaleFigure]) -> str:
    """A column a mesh, a row a figure, the goal at the end."""
    meshes = list(dict.fromkeys((each.pods, each.nodes) for each in figures))
    heads = ["", *(f"{pods:,} pods" + (f" × {nodes:,}" if nodes else "") for pods, nodes in meshes)]
    rows = [[*heads, "goal", "exponent"]]
    for name, (words, unit) in NAMES.items():
        found = {(each.pods, each.nodes): each.value for each in figures if each.name == name}
        if not found:
            continue
        cells = [shown(found[mesh]) if mesh in found else "" for mesh in meshes]
        goal = next((shown(each.limit) for each in GOALS if each.name == name), "")
        grown = exponent(figures, name)
        label = f"{words}, {unit}" if unit else words
        rows.append([label, *cells, goal, "" if grown is None else f"{grown:.2f}"])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
