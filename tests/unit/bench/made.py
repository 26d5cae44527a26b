"""Results made up for tests."""

from __future__ import annotations

from tests.bench.model import Measurement, Result, System, Topology

CROSS, SAME = Topology.CROSS.value, Topology.SAME.value
TULLE, ENVOY, NONE, HAPROXY = (
    System.TULLE.value,
    System.ENVOY.value,
    System.NONE.value,
    System.HAPROXY.value,
)


def measurement(
    case: str, system: str, topology: str = CROSS, kept: bool = True, **values: float
) -> Measurement:
    return Measurement(case, topology, system, 1, 1, values, 0.0 if kept else 0.4, kept)


def result(*measurements: Measurement) -> Result:
    return Result(
        started_at="2026-01-02T03:04:05+00:00",
        machine={"cpu": "a <fast> one", "cores": "2", "kernel": "6.1"},
        measurements=measurements,
    )
