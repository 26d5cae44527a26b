"""The goals in one table, and which of them a run meets. Pure.

A goal that a run did not measure is missing, never met.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tests.bench.model import Result, System, Topology, ratio

CROSS, SAME = Topology.CROSS.value, Topology.SAME.value
HOST = "one host"
SHORTCUT = "shortcut"  # key in the machine's description: "on", or the reason why not
ENVOY, NONE = System.ENVOY.value, System.NONE.value


@dataclass(frozen=True, slots=True)
class Goal:
    """Tulle's median over that of `against`, or Tulle's alone where that is empty."""

    what: str
    topology: str
    case: str
    metric: str
    against: str
    limit: float
    at_least: bool
    aim: float | None = None
    needs_shortcut: bool = False  # not a goal where segments have to pass the host's stack


def with_shortcut(what: str, case: str, metric: str) -> Goal:
    """Better than no mesh, whose segments pass the host's stack in any case."""
    return Goal(f"{what} (shortcut)", SAME, case, metric, NONE, 1.0, True, needs_shortcut=True)


def least(
    what: str, where: tuple[str, str, str], against: str, limit: float, aim: float | None = None
) -> Goal:
    return Goal(what, *where, against, limit, True, aim)


def most(
    what: str, where: tuple[str, str, str], against: str, limit: float, aim: float | None = None
) -> Goal:
    return Goal(what, *where, against, limit, False, aim)


GOALS = (
    # The engine, against an Envoy pair on the same machine in the same run.
    least("64 connections, requests/s", (CROSS, "c64", "rps"), ENVOY, 1.1, 1.3),
    most("64 connections, p99", (CROSS, "c64", "p99_us"), ENVOY, 0.8),
    most("1 connection, p50", (CROSS, "c1", "p50_us"), ENVOY, 0.85, 0.65),
    least("new connections/s", (CROSS, "close", "rps"), ENVOY, 1.3),
    least("bulk, 1 stream to the server", (CROSS, "bulk1", "gbit_s"), ENVOY, 1.2),
    least("bulk, 1 stream back", (CROSS, "bulk1r", "gbit_s"), ENVOY, 1.1),
    most("CPU per request, client side", (CROSS, "c64", "cpu_out_us"), ENVOY, 0.9),
    most("CPU per request, server side", (CROSS, "c64", "cpu_in_us"), ENVOY, 0.9),
    most("RSS of the ztunnel, client side", (CROSS, "c64", "rss_out_mib"), ENVOY, 1.3),
    most("RSS of the ztunnel, server side", (CROSS, "c64", "rss_in_mib"), ENVOY, 1.3),
    most("RSS of a worker, client side", (CROSS, "c64", "worker_rss_out_mib"), ENVOY, 0.6),
    most("RSS of a worker, server side", (CROSS, "c64", "worker_rss_in_mib"), ENVOY, 0.6),
    most("fairness: p99 beside bulk / without", (CROSS, "fairness", "p99_ratio"), "", 2.0),
    most("10,000-workload push: p99 during / before", (CROSS, "push", "during_ratio"), "", 1.5),
    most("10,000-workload push: longest stall, ms", (CROSS, "push", "stall_ms"), "", 10.0),
    most("idle connection, client side, KiB", (CROSS, "idle", "idle_out_kib"), "", 6.0),
    most("idle connection, server side, KiB", (CROSS, "idle", "idle_in_kib"), "", 6.0),
    # The same node, against the bare kernel.
    least("same node, 1 connection, requests/s", (SAME, "c1", "rps"), NONE, 0.97),
    least("same node, 64 connections, requests/s", (SAME, "c64", "rps"), NONE, 0.97),
    most("same node, 1 connection, p50", (SAME, "c1", "p50_us"), NONE, 1.05),
    most("same node, 64 connections, p50", (SAME, "c64", "p50_us"), NONE, 1.05),
    least("same node, bulk, 1 stream to the server", (SAME, "bulk1", "gbit_s"), NONE, 1.0),
    least("same node, bulk, 1 stream back", (SAME, "bulk1r", "gbit_s"), NONE, 1.0),
    with_shortcut("same node, 1 connection, requests/s", "c1", "rps"),
    with_shortcut("same node, 64 connections, requests/s", "c64", "rps"),
    most("capture, connect() of the not enrolled", (HOST, "capture", "attached_ratio"), "", 1.02),
)

# The peer has one process: our worker's memory is compared with all of it.
_PEER_METRIC = {"worker_rss_out_mib": "rss_out_mib", "worker_rss_in_mib": "rss_in_mib"}


class Verdict(Enum):
    MET = "met"
    SHORT = "short"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Judged:
    goal: Goal
    verdict: Verdict
    value: float | None

    @property
    def reaches_aim(self) -> bool:
        goal = self.goal
        if goal.aim is None or self.value is None:
            return False
        return reaches(self.value, goal.aim, at_least=goal.at_least)


def reaches(value: float, limit: float, *, at_least: bool) -> bool:
    return value >= limit if at_least else value <= limit


def value_of(goal: Goal, result: Result) -> float | None:
    ours = result.figure(goal.topology, goal.case, System.TULLE.value, goal.metric)
    if not goal.against:
        return ours.median if ours else None
    metric = _PEER_METRIC.get(goal.metric, goal.metric)
    return ratio(ours, result.figure(goal.topology, goal.case, goal.against, metric))


def judge(result: Result) -> list[Judged]:
    judged = []
    shortcut = result.machine.get(SHORTCUT) == "on"
    for goal in GOALS:
        if goal.needs_shortcut and not shortcut:
            continue
        value = value_of(goal, result)
        if value is None:
            verdict = Verdict.MISSING
        elif reaches(value, goal.limit, at_least=goal.at_least):
            verdict = Verdict.MET
        else:
            verdict = Verdict.SHORT
        judged.append(Judged(goal, verdict, value))
    return judged


def text(judged: list[Judged]) -> str:
    """Missed goals first: a reader looks for those."""
    order = (Verdict.SHORT, Verdict.MISSING, Verdict.MET)
    lines = []
    for one in sorted(judged, key=lambda item: order.index(item.verdict)):
        goal = one.goal
        sign, better = ("≥", max) if goal.at_least else ("≤", min)
        against = f"x of {goal.against}" if goal.against else ""
        is_value = f"{one.value:.3f}" if one.value is not None else "not measured"
        aim = ""
        if goal.aim is not None and better(goal.aim, goal.limit) == goal.aim:
            aim = f", aim {goal.aim:g}{' reached' if one.reaches_aim else ''}"
        lines.append(
            f"{one.verdict.value:8} {is_value:>12}  (goal {sign} {goal.limit:g}{against}{aim})"
            f"  {goal.what}"
        )
    count = {verdict: sum(one.verdict is verdict for one in judged) for verdict in Verdict}
    lines.append(
        f"{count[Verdict.MET]} of {len(judged)} goals met, {count[Verdict.SHORT]} short, "
        f"{count[Verdict.MISSING]} not measured"
    )
    return "\n".join(lines)
