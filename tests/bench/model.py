"""The values of a benchmark run and the figures computed from them; never measures or prints.

A *measurement* is one case on one system in one round. Those during which somebody else used the
machine are not kept; medians are taken over the kept ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from control.kit.errors import MeshError

# Above this share of the machine's CPU time somebody else's work shows in our figures.
FOREIGN_SHARE_MAX = 0.10


class BenchError(MeshError):
    """A measurement that could not be made; the message says why."""

    reason = "bench"


class System(Enum):
    NONE = "no mesh"
    TULLE = "Tulle"
    ENVOY = "Envoy"
    HAPROXY = "HAProxy"
    ZTUNNEL = "ztunnel"  # Istio's, or any other that is started like it


class Topology(Enum):
    CROSS = "cross-node"
    SAME = "same-node"


@dataclass(frozen=True, slots=True)
class Metric:
    """The label, unit and direction of a figure."""

    label: str
    unit: str
    more_is_better: bool = False
    digits: int = 0


METRICS: Mapping[str, Metric] = {
    "rps": Metric("requests/s", "/s", more_is_better=True),
    "p50_us": Metric("p50", "µs"),
    "p99_us": Metric("p99", "µs"),
    "cpu_out_us": Metric("CPU per request, client side", "µs", digits=1),
    "cpu_in_us": Metric("CPU per request, server side", "µs", digits=1),
    "cpu_both_us": Metric("CPU per request, the node's one proxy", "µs", digits=1),
    "rss_out_mib": Metric("RSS, client side", "MiB", digits=1),
    "rss_in_mib": Metric("RSS, server side", "MiB", digits=1),
    "rss_both_mib": Metric("RSS, the node's one proxy", "MiB", digits=1),
    "worker_rss_out_mib": Metric("RSS of the worker, client side", "MiB", digits=1),
    "worker_rss_in_mib": Metric("RSS of the worker, server side", "MiB", digits=1),
    "worker_rss_both_mib": Metric("RSS of the node's one worker", "MiB", digits=1),
    "gbit_s": Metric("throughput", "Gbit/s", more_is_better=True, digits=2),
    "cpu_out_ms_per_gbit": Metric("CPU per Gbit, client side", "ms", digits=1),
    "cpu_in_ms_per_gbit": Metric("CPU per Gbit, server side", "ms", digits=1),
    "cpu_both_ms_per_gbit": Metric("CPU per Gbit, the node's one proxy", "ms", digits=1),
    "alone_p99_us": Metric("p99 without bulk", "µs"),
    "beside_p99_us": Metric("p99 beside bulk", "µs"),
    "p99_ratio": Metric("p99 beside / without", "x", digits=2),
    "beside_rps": Metric("requests/s beside bulk", "/s", more_is_better=True),
    "bulk_gbit_s": Metric("bulk beside requests", "Gbit/s", more_is_better=True, digits=2),
    "idle_out_kib": Metric("memory per idle connection, client side", "KiB", digits=2),
    "idle_in_kib": Metric("memory per idle connection, server side", "KiB", digits=2),
    "idle_both_kib": Metric("memory per idle connection, both sides", "KiB", digits=2),
    "before_p99_us": Metric("p99 before the push", "µs"),
    "during_p99_us": Metric("p99 during the push", "µs"),
    "during_ratio": Metric("p99 during / before", "x", digits=2),
    "stall_before_ms": Metric("longest answer before the push", "ms", digits=1),
    "stall_ms": Metric("longest answer during the push", "ms", digits=1),
    "machine_p99_us": Metric("p99 beside the mesh during the push", "µs"),
    "machine_stall_ms": Metric("longest answer beside the mesh meanwhile", "ms", digits=1),
    "push_s": Metric("push on its way", "s", digits=1),
    "few_rps": Metric("requests/s, few rules", "/s", more_is_better=True),
    "many_rps": Metric("requests/s, 1,000 rules", "/s", more_is_better=True),
    "rps_kept": Metric("requests/s kept with 1,000 rules", "x", more_is_better=True, digits=2),
    "few_conns": Metric("new connections/s, few rules", "/s", more_is_better=True),
    "many_conns": Metric("new connections/s, 1,000 rules", "/s", more_is_better=True),
    "conns_kept": Metric("new connections/s kept with 1,000 rules", "x", True, 2),
    "plain_us": Metric("connect() without the programs", "µs", digits=2),
    "attached_us": Metric("connect() of a process not enrolled", "µs", digits=2),
    "attached_ratio": Metric("… with / without the programs", "x", digits=3),
    "connect_us": Metric("connect() of the application", "µs", digits=1),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    case: str
    topology: str
    system: str
    round: int
    attempt: int
    values: Mapping[str, float]
    foreign: float  # share of the machine's CPU time that others used
    kept: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with its range."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Half the range over the median: ±."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """One whole run, as it is on disk."""

    started_at: str
    machine: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, topology: str, case: str, system: str, metric: str) -> Figure | None:
        found = [
            each.values[metric]
            for each in self.measurements
            if each.kept
            and (each.topology, each.case, each.system) == (topology, case, system)
            and metric in each.values
        ]
        return figure(found)

    def rows(self) -> list[tuple[str, str, str]]:
        """(topology, case, metric) in the order in which they were measured."""
        seen: dict[tuple[str, str, str], None] = {}
        for each in self.measurements:
            for metric in each.values:
                seen[each.topology, each.case, metric] = None
        # A metric that only one system has comes after those before it, not at the case's end.
        order = list(METRICS)
        cases = list(dict.fromkeys((row[0], row[1]) for row in seen))
        return sorted(seen, key=lambda row: (cases.index(row[:2]), order.index(row[2])))

    def systems(self) -> list[str]:
        present = {each.system for each in self.measurements}
        return [system.value for system in System if system.value in present]


def figure(values: Iterable[float]) -> Figure | None:
    found = sorted(values)
    if not found:
        return None
    return Figure(statistics.median(found), found[0], found[-1], len(found))


def ratio(one: Figure | None, other: Figure | None) -> float | None:
    if one is None or other is None or other.median == 0:
        return None
    return one.median / other.median


def foreign_share(busy_s: float, ours_s: float, wall_s: float, cores: int) -> float:
    """Share of all CPU time that went to others. Ticks are coarse, so it may fall below 0."""
    if wall_s <= 0:
        return 0.0
    return max(0.0, busy_s - ours_s) / (wall_s * cores)
