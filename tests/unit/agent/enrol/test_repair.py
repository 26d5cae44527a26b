"""Belief and kernel: what is repaired, counted and shown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.datapath.audit import Difference, LostPart
from agent.enrol.facts import Facts
from agent.enrol.plan import Capture, Handover
from agent.enrol.repair import KEPT_MAX, LOGGED_MAX, Repair
from tests.support.kernel.fake_datapath import FakeDatapath, FakeZtunnel
from tests.unit.agent.enrol.conftest import ADDRESS, POD

LINK = Difference(LostPart.LINK, "link", POD.uid)
SLOTS = Difference(LostPart.LISTENERS, "96 slots", POD.uid)
ENTRY = Difference(LostPart.ENTRY, "8", POD.uid)


@pytest.fixture
def datapath() -> FakeDatapath:
    return FakeDatapath()


@pytest.fixture
def repair(facts: Facts, datapath: FakeDatapath) -> Repair:
    """A node with one pod, captured for a ztunnel that lives."""
    ztunnel: Any = FakeZtunnel(7)
    facts.ztunnels[7] = ztunnel
    facts.book.ztunnel_joined(7)
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.adopted(POD.uid, Capture(POD.cookie, (ADDRESS,), 7))
    facts.book._set_handover(POD.uid, 7, Handover(7, POD.cookie))
    return Repair(facts, datapath, lambda: [])


def compare(repair: Repair) -> list[Difference]:
    return asyncio.run(repair.compare())


def is_to_be_captured(facts: Facts) -> bool:
    pod = facts.book.pods()[POD.uid]
    assert pod.capture is not None  # it is never let out meanwhile
    return pod.capture.ztunnel is None and not any(each.ready for each in pod.handovers)


def test_a_kernel_as_it_should_be_changes_nothing(repair: Repair, facts: Facts) -> None:
    before = facts.book.pods()[POD.uid]
    assert compare(repair) == []
    assert facts.book.pods()[POD.uid] is before
    assert repair.compared.status()["differences"] == {}
    assert repair.compared.at == facts.clock.now()


@pytest.mark.parametrize("lost", [LINK, SLOTS])
def test_a_pod_that_lost_its_link_or_listeners_is_captured_again(
    repair: Repair, facts: Facts, datapath: FakeDatapath, lost: Difference
) -> None:
    datapath.audit.of_pods[POD.uid] = [lost]
    assert compare(repair) == [lost]
    assert is_to_be_captured(facts)


def test_what_was_mended_at_once_needs_no_new_capture(
    repair: Repair, facts: Facts, datapath: FakeDatapath
) -> None:
    datapath.audit.of_pods[POD.uid] = [ENTRY]
    assert compare(repair) == [ENTRY]
    assert not is_to_be_captured(facts)
    assert repair.compared.counts == {LostPart.ENTRY: 1}


def test_listeners_that_went_with_their_ztunnel_are_no_difference(
    repair: Repair, facts: Facts, datapath: FakeDatapath
) -> None:
    datapath.audit.of_pods[POD.uid] = [SLOTS]
    facts.book.ztunnel_left(7)
    del facts.ztunnels[7]
    assert compare(repair) == []
    datapath.audit.of_pods[POD.uid] = [SLOTS, LINK]
    assert compare(repair) == [LINK]


def test_a_difference_that_comes_back_is_standing(repair: Repair, datapath: FakeDatapath) -> None:
    datapath.audit.of_pods[POD.uid] = [LINK]
    compare(repair)
    assert repair.compared.standing == ()
    compare(repair)
    assert repair.compared.status()["standing"] == ["uid: pod_link_lost (link)"]
    datapath.audit.of_pods.clear()
    compare(repair)
    assert repair.compared.standing == ()
    assert repair.compared.status()["found"] == ["uid: pod_link_lost (link)"]  # still told
    datapath.audit.of_pods[POD.uid] = [LINK]
    compare(repair)
    assert repair.compared.standing == (), "it was repaired, and is lost anew"


def test_a_pod_that_leaves_is_left_alone(
    repair: Repair, facts: Facts, datapath: FakeDatapath
) -> None:
    datapath.audit.of_pods[POD.uid] = [LINK]
    facts.book.gone(POD.uid)
    assert compare(repair) == []


def test_the_entry_of_a_namespace_that_is_nowhere_goes(
    repair: Repair, datapath: FakeDatapath
) -> None:
    datapath.audit.of_node = [Difference(LostPart.STRANGER, str(2**63 + 5))]
    compare(repair)
    assert datapath.forgotten == [2**63 + 5]


def test_a_ztunnels_cgroup_is_exempted_again(
    facts: Facts, datapath: FakeDatapath, tmp_path: Path
) -> None:
    repair = Repair(facts, datapath, lambda: [tmp_path, tmp_path / "gone"])
    assert compare(repair) == [Difference(LostPart.EXEMPTION, str(tmp_path))]
    assert datapath.exempted == {tmp_path}
    assert compare(repair) == []


def test_a_kernel_that_cannot_be_asked_is_an_error_of_its_own(
    repair: Repair, datapath: FakeDatapath
) -> None:
    datapath.audit.refuses = True
    assert compare(repair) == []
    assert repair.compared.error == "no"
    assert repair.compared.at is None
    datapath.audit.refuses = False
    compare(repair)
    assert repair.compared.error == ""


def test_a_flood_of_differences_is_counted_whole_and_told_in_part(
    repair: Repair, datapath: FakeDatapath, caplog: pytest.LogCaptureFixture
) -> None:
    datapath.audit.of_pods[POD.uid] = [
        Difference(LostPart.ENTRY, str(number), POD.uid) for number in range(KEPT_MAX * 2)
    ]
    compare(repair)
    compare(repair)
    assert repair.compared.counts == {LostPart.ENTRY: KEPT_MAX * 4}
    assert len(repair.compared.last) == len(repair.compared.standing) == KEPT_MAX
    # A test before may have let lines about states through.
    told = [each for each in caplog.records if each.getMessage().startswith("kernel.")]
    assert len(told) == 2 * (LOGGED_MAX + 1)
