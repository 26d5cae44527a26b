"""Workload ids and reachable addresses of captured pods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.datapath.entries import WORKLOAD_ID_MAX
from agent.datapath.locals import Locals
from agent.datapath.pods import CapturedPod
from bpf import layout
from control.model.address import Address, mapped, parse_address
from tests.support.kernel.memory_map import MemoryMap

FOUR, SIX = parse_address("10.0.0.2"), parse_address("fd00::2")
POD = CapturedPod("uid", 1, (FOUR, SIX), 15001, workload_id=3, direct=True)


class FakeTables:
    """The table of local addresses."""

    def __init__(self, table: MemoryMap) -> None:
        self._table = table

    def add_local(self, address: Address, workload: int, device: int = 0) -> None:
        value = layout.Local(workload=workload, device=device)
        self._table.update(mapped(address), bytes(value))

    def remove_local(self, address: Address, workload: int) -> bool:
        return self._table.delete(mapped(address))


@pytest.fixture
def maps() -> dict[str, Any]:
    return {"locals": MemoryMap(16, 8), "workload_last": MemoryMap(4, 4)}


@pytest.fixture
def reachable(maps: dict[str, Any]) -> Locals:
    tables: Any = FakeTables(maps["locals"])
    return Locals(maps, tables)


def addresses(maps: dict[str, Any]) -> set[bytes]:
    return set(maps["locals"])


def test_an_id_is_never_given_twice(reachable: Locals) -> None:
    fresh = replace(POD, workload_id=0)
    first = reachable.workload_id(None, fresh, [])
    second = reachable.workload_id(None, fresh, [])
    assert (first, second) == (1, 2)
    # A new table beside a pod that was taken over with its id.
    assert reachable.workload_id(None, fresh, [replace(POD, workload_id=70)]) == 71


def test_an_id_stays_for_as_long_as_the_addresses_do(reachable: Locals) -> None:
    same = replace(POD, workload_id=0, outbound_port=2)
    assert reachable.workload_id(POD, same, [POD]) == 3
    moved = replace(same, addresses=(FOUR,))
    assert reachable.workload_id(POD, moved, [POD]) == 4


def test_without_ids_left_a_pod_has_no_part_in_the_direct_path(reachable: Locals) -> None:
    last = replace(POD, workload_id=WORKLOAD_ID_MAX)
    assert reachable.workload_id(None, replace(POD, workload_id=0), [last]) == 0


def test_only_direct_pods_are_reachable(reachable: Locals, maps: dict[str, Any]) -> None:
    reachable.add(replace(POD, direct=False))
    reachable.add(replace(POD, workload_id=0))
    assert addresses(maps) == set()
    reachable.add(POD)
    assert addresses(maps) == {mapped(FOUR), mapped(SIX)}


def test_an_address_that_stays_is_never_away(reachable: Locals, maps: dict[str, Any]) -> None:
    reachable.add(POD)
    reachable.remove(POD, but=replace(POD, addresses=(SIX,)))
    assert addresses(maps) == {mapped(SIX)}
    reachable.remove(POD)
    assert addresses(maps) == set()


def test_what_nobody_has_is_cleared(reachable: Locals, maps: dict[str, Any]) -> None:
    maps["locals"].update(mapped(parse_address("10.0.0.200")), bytes(8))
    reachable.keep([POD])
    assert addresses(maps) == {mapped(FOUR), mapped(SIX)}


def test_a_kernel_without_the_direct_path_has_ids_and_no_addresses(maps: dict[str, Any]) -> None:
    bare = Locals(maps, None)
    assert bare.workload_id(None, POD, []) == 1
    bare.add(POD)
    bare.remove(POD)
    assert addresses(maps) == set()
