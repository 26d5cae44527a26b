"""The direct path's tables, on maps in memory."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from agent.datapath.bpfsys import cpu_count_possible
from agent.datapath.entries import LocalEndpoint
from agent.datapath.tables import DirectTables
from bpf import layout
from control.model.address import Endpoint, mapped, parse_address

WEB = parse_address("10.0.0.3")
ONLY = struct.pack("=I", 0)


class FakeMap(dict[bytes, bytes]):
    """A map as bytes; `fd` is a file that looks like an empty ring."""

    max_entries = mmap.PAGESIZE

    def __init__(self, fd: int = -1) -> None:
        super().__init__()
        self.fd = fd

    def lookup(self, key: bytes, value_bytes: int | None = None) -> bytes | None:
        return self.get(key)

    def update(self, key: bytes, value: bytes) -> None:  # type: ignore[override]  # as a map's
        self[key] = value

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None


@pytest.fixture
def maps() -> Iterator[dict[str, Any]]:
    ring = os.memfd_create("ring")
    os.ftruncate(ring, 4 * mmap.PAGESIZE)
    names = ("direct_state", "verdicts", "services", "locals", "counters", "direct_socket")
    yield {**{name: FakeMap() for name in names}, "flows": FakeMap(ring)}
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
    assert not maps["verdicts"]


def test_services_are_written_and_dropped(tables: DirectTables, maps: dict[str, Any]) -> None:
    local = LocalEndpoint(1, 7, Endpoint(WEB, 8080))
    for source in (1, 2, 3):
        tables.put_service(source, parse_address("fd96::9"), 80, 4, [local])
    tables.drop_service(2, parse_address("fd96::9"), 80)
    tables.drop_service(2, parse_address("fd96::9"), 80)  # gone already
    assert len(maps["services"]) == 2
    tables.drop_services()
    assert not maps["services"]


def test_an_address_with_a_new_owner_keeps_it(tables: DirectTables, maps: dict[str, Any]) -> None:
    tables.add_local(WEB, 7, device=3)
    value = layout.Local.from_buffer_copy(maps["locals"][mapped(WEB)])
    assert (value.workload, value.device) == (7, 3)
    assert not tables.remove_local(WEB, 6)
    assert tables.remove_local(WEB, 7)
    assert not tables.remove_local(WEB, 7)
    with pytest.raises(ValueError, match="workload id 0"):
        tables.add_local(WEB, 0)


def test_an_empty_ring_has_no_reports(tables: DirectTables) -> None:
    assert tables.read_flows(10) == []
    assert tables.unread_bytes() == 0


def test_lost_reports_are_summed_over_the_processors(
    tables: DirectTables, maps: dict[str, Any]
) -> None:
    assert tables.lost_flows() == 0
    counts = range(cpu_count_possible())
    key = struct.pack("=I", layout.Counter.FLOW_LOST)
    maps["counters"][key] = struct.pack(f"={len(counts)}Q", *counts)
    assert tables.lost_flows() == sum(counts)


def test_a_socket_that_is_not_direct_is_no_flow(tables: DirectTables) -> None:
    assert tables.open_flow(7, b"") is None
