"""A case: a name, and one measurement of one target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.bed import Bed
from tests.bench.model import System, Topology
from tests.bench.target import Target

Values = dict[str, float]
ALL = tuple(System)
BOTH = tuple(Topology)
GRACE_S = 15.0  # beyond a load generator's own time; then it is given up


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations and amounts."""

    seconds: float
    idle_connections: int = 5000
    pushed_pods: int = 10_000
    rules: int = 1000


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    title: str
    run: Callable[[Bed, Target, Settings], Values]
    systems: tuple[System, ...] = ALL
    topologies: tuple[Topology, ...] = BOTH
    once: bool = False  # not in every round: it takes long, and its figures are steady
    leaves_traces: bool = False  # leaves traces in the proxies' memory: runs after all others
