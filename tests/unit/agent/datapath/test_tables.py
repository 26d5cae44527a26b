"""The direct path's tables, on maps in memory."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from agent.datapath.entries import LocalEndpoint
from agent.datapath.maps import cpu_count_possible
from agent.datapath.tables import DirectTables
from bpf import layout
from control.model.address import Endpoint, parse_address
from tests.support.kernel.memory_map import MemoryMap

WEB = parse_address("10.0.0.3")


@pytest.fixture
def maps() -> Iterator[dict[str, Any]]:
    ring = os.memfd_create("ring")
    os.ftruncate(ring, 4 * mmap.PAGESIZE)
    names = ("direct_state", "verdicts", "services", "direct_socket")
    specs = {name: layout.MAPS[name] for name in names}
    tables = {name: MemoryMap(spec.key_bytes, spec.value_bytes) for name, spec in specs.items()}
    counters = MemoryMap(4, 8 * cpu_count_possible())  # one slot for each processor
    yield {**tables, "counters": counters, "flows": MemoryMap(0, 0, mmap.PAGESIZE, ring)}
    os.close(ring)


@pytest.fixture
def tables(maps: dict[str, Any]) -> Iterator[DirectTables]:
    made = DirectTables(maps)
    yield made
    made.close()


def test_the_state_comes_back_and_starts_as_nothing(tables: DirectTables) -> None:
    assert tables.state() == (0, 0)
    tables.set_state(7, 5_000)
    assert tables.state() == (7, 5_000)
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match="generation"):
            tables.set_state(wrong, 0)


@pytest.mark.parametrize("wrong", [(0, 2, 1), (1, 0, 1), (1, 2, 0)])
def test_a_verdict_about_nobody_is_never_written(
    tables: DirectTables, maps: dict[str, Any], wrong: tuple[int, int, int]
) -> None:
    source, destination, generation = wrong
    with pytest.raises(ValueError, match="a verdict for nobody"):
        tables.put_verdict(source, destination, 80, generation)
    assert list(maps["verdicts"]) == []


def test_services_are_written_and_dropped(tables: DirectTables, maps: dict[str, Any]) -> None:
    local = LocalEndpoint(1, 7, Endpoint(WEB, 8080))
    for source in (1, 2, 3):
        tables.put_service(source, parse_address("fd96::9"), 80, 4, [local])
    tables.drop_service(2, parse_address("fd96::9"), 80)
    tables.drop_service(2, parse_address("fd96::9"), 80)  # gone already
    assert maps["services"].count() == 2
    tables.drop_services()
    assert maps["services"].count() == 0


def test_an_empty_ring_has_no_reports(tables: DirectTables) -> None:
    assert tables.read_flows(10) == []
    assert tables.unread_bytes() == 0


def test_lost_reports_are_summed_over_the_processors(
    tables: DirectTables, maps: dict[str, Any]
) -> None:
    assert tables.lost_flows() == 0
    counts = range(cpu_count_possible())
    key = struct.pack("=I", layout.Counter.FLOW_LOST)
    maps["counters"].update(key, struct.pack(f"={len(counts)}Q", *counts))
    assert tables.lost_flows() == sum(counts)


def test_a_socket_that_is_not_direct_is_no_flow(tables: DirectTables) -> None:
    assert tables.open_flow(7, b"") is None
