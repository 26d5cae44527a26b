"""Workload ids and reachable addresses of captured pods."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import replace
from typing import Any

import pytest

from agent.datapath.entries import WORKLOAD_ID_MAX
from agent.datapath.locals import Locals
from agent.datapath.pods import CapturedPod
from bpf import layout
from control.model.address import mapped, parse_address
from tests.support.kernel.memory_map import MemoryMap

FOUR, SIX = parse_address("10.0.0.2"), parse_address("fd00::2")
POD = CapturedPod("uid", 1, (FOUR, SIX), workload_id=3, direct=True)


@pytest.fixture
def maps() -> dict[str, Any]:
    size = ctypes.sizeof(layout.Local)
    return {
        "locals": MemoryMap(16, size),
        "workload_last": MemoryMap(4, 4),
        "pod_flows": MemoryMap(4, 8),
    }


@pytest.fixture
def reachable(maps: dict[str, Any]) -> Locals:
    return Locals(maps)


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
    same = replace(POD, workload_id=0, direct=False)
    assert reachable.workload_id(POD, same, [POD]) == 3
    moved = replace(same, addresses=(FOUR,))
    assert reachable.workload_id(POD, moved, [POD]) == 4


def test_without_ids_left_a_pod_has_no_part_in_the_direct_path(reachable: Locals) -> None:
    last = replace(POD, workload_id=WORKLOAD_ID_MAX)
    assert reachable.workload_id(None, replace(POD, workload_id=0), [last]) == 0


@pytest.mark.parametrize(
    ("pod", "direct"),
    [(POD, 1), (replace(POD, direct=False), 0), (replace(POD, workload_id=0), 0)],
    ids=["direct", "by the tunnel", "without an id"],
)
def test_every_captured_pod_has_an_entry_that_says_whether_it_is_direct(
    reachable: Locals, maps: dict[str, Any], pod: CapturedPod, direct: int
) -> None:
    reachable.add(POD)
    reachable.add(pod)
    for address in (FOUR, SIX):
        found = layout.Local.from_buffer_copy(maps["locals"].lookup(mapped(address)))
        assert (found.workload, found.direct) == (pod.workload_id, direct)


def test_an_address_with_a_new_owner_keeps_it(reachable: Locals, maps: dict[str, Any]) -> None:
    reachable.add(POD)
    reachable.add(replace(POD, uid="new", workload_id=4, addresses=(FOUR,)))
    reachable.remove(POD)
    assert addresses(maps) == {mapped(FOUR)}


def test_an_address_that_stays_is_never_away(reachable: Locals, maps: dict[str, Any]) -> None:
    reachable.add(POD)
    reachable.remove(POD, but=replace(POD, addresses=(SIX,)))
    assert addresses(maps) == {mapped(SIX)}
    reachable.remove(POD)
    assert addresses(maps) == set()


def test_what_nobody_has_is_cleared(reachable: Locals, maps: dict[str, Any]) -> None:
    nobody = bytes(ctypes.sizeof(layout.Local))
    maps["locals"].update(mapped(parse_address("10.0.0.200")), nobody)
    reachable.keep([POD])
    assert addresses(maps) == {mapped(FOUR), mapped(SIX)}


def test_the_number_of_its_connections_goes_with_an_id(
    reachable: Locals, maps: dict[str, Any]
) -> None:
    for number in (3, 4, 5):
        maps["pod_flows"].update(struct.pack("=I", number), bytes(8))
    reachable.remove(POD, but=replace(POD, direct=False))
    assert len(set(maps["pod_flows"])) == 3
    reachable.remove(POD, but=replace(POD, workload_id=4))
    assert struct.pack("=I", 3) not in set(maps["pod_flows"])
    reachable.keep([replace(POD, workload_id=4)])
    assert set(maps["pod_flows"]) == {struct.pack("=I", 4)}
