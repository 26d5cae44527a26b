"""Counters are summed over the processors; only maps that can run full are told of."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from agent.datapath import maps, usage
from agent.datapath.usage import MapUsage
from bpf import layout
from tests.support.kernel.memory_map import MemoryMap

CPUS = 2


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(maps, "cpu_count_possible", lambda: CPUS)
    counters = MemoryMap(4, 8 * CPUS)
    counters.update(struct.pack("=I", layout.Counter.FLOW_LOST), struct.pack("=2Q", 3, 4))
    return {"counters": counters, "pods": MemoryMap(8, 4), "flows": MemoryMap(0, 0, 4096)}


class Ring:
    """The direct path's tables, of which only the ring is looked at."""

    def unread_bytes(self) -> int:
        return 96


def test_a_counter_is_the_sum_of_its_processors(opened: dict[str, Any]) -> None:
    found = usage.counters(opened)
    assert found["flow_lost"] == 7
    assert set(found) == {each.name.lower() for each in layout.Counter}
    assert sum(found.values()) == 7


def test_maps_that_can_run_full_and_the_ring(opened: dict[str, Any]) -> None:
    opened["pods"].update(bytes(8), bytes(4))
    ring: Any = Ring()
    pods = MapUsage("pods", 1, layout.MAPS["pods"].max_entries)
    assert usage.of_maps(opened, None) == [pods]
    assert usage.of_maps(opened, ring) == [pods, MapUsage("flows", 96, 4096, drops=7)]
