"""The comparison of one pod, on maps in memory; tests/netns/capture/test_audit.py has a kernel."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.datapath import pods
from agent.datapath.audit import _POD_PINS, TO_CAPTURE, Difference, KernelAudit, LostPart
from agent.datapath.folder import PinFolder
from agent.datapath.pods import CapturedPod
from agent.datapath.programs import Image
from bpf import layout
from control.model.address import parse_address
from tests.support.kernel.memory_map import MemoryMap

POD = CapturedPod("uid", 5, (parse_address("10.0.0.2"),), workload_id=3)


@pytest.fixture
def maps() -> dict[str, Any]:
    return {
        "pods": MemoryMap(8, ctypes.sizeof(layout.PodValue)),
        "locals": MemoryMap(16, ctypes.sizeof(layout.Local)),
    }


def audit(folder: Path, maps: dict[str, Any], *captured: CapturedPod) -> KernelAudit:
    by_uid = {pod.uid: pod for pod in captured}
    return KernelAudit(PinFolder(folder), folder, Image("", {}), maps, by_uid)


def kinds(found: list[Difference]) -> list[LostPart]:
    return [each.kind for each in found]


def test_a_pod_without_anything_lacks_everything_and_its_entry_is_put_back(
    tmp_path: Path, maps: dict[str, Any]
) -> None:
    found = audit(tmp_path, maps, POD).pod("uid")
    assert kinds(found) == [
        LostPart.ENTRY,
        *[LostPart.PINS] * len(_POD_PINS),
        LostPart.LINK,
        LostPart.LISTENERS,
    ]
    assert {each.uid for each in found} == {"uid"}
    assert maps["pods"].lookup(pods.cookie_key(5)) == bytes(pods.pod_value(POD))
    assert LostPart.ENTRY not in kinds(audit(tmp_path, maps, POD).pod("uid"))


def test_an_entry_of_another_state_is_put_right(tmp_path: Path, maps: dict[str, Any]) -> None:
    other = replace(POD, direct=True)
    maps["pods"].update(pods.cookie_key(5), bytes(pods.pod_value(other)))
    assert audit(tmp_path, maps, POD).pod("uid")[0] == Difference(LostPart.ENTRY, "5", "uid")
    assert maps["pods"].lookup(pods.cookie_key(5)) == bytes(pods.pod_value(POD))


def test_a_pod_that_the_kernel_half_does_not_know_is_to_be_captured(
    tmp_path: Path, maps: dict[str, Any]
) -> None:
    found = audit(tmp_path, maps).pod("uid")
    assert kinds(found) == [LostPart.CAPTURE]
    assert set(kinds(found)) <= TO_CAPTURE


def test_a_shortcut_that_is_not_there_is_missed(tmp_path: Path, maps: dict[str, Any]) -> None:
    found = audit(tmp_path, maps, replace(POD, device=9)).pod("uid")
    assert found[-1] == Difference(LostPart.SHORTCUT, "device 9", "uid")


def test_every_map_of_a_pod_is_looked_for() -> None:
    assert {*_POD_PINS, "listeners"} == {n for n, spec in layout.MAPS.items() if spec.per_pod}


def test_every_kind_says_what_becomes_of_it() -> None:
    mended = {LostPart.MAP_PIN, LostPart.HOOK, LostPart.EXEMPTION, LostPart.ENTRY, LostPart.ADDRESS}
    assert mended | TO_CAPTURE | {LostPart.STRANGER} == set(LostPart)
