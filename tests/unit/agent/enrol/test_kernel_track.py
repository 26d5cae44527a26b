"""The kernel's track, on a kernel half in memory."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest

from agent import registry
from agent.datapath.pods import CapturedPod
from agent.enrol import plan
from agent.enrol.book import RETRY_S
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import KernelTrack
from agent.enrol.plan import AddToZtunnel, Capture, CapturePod, PodState, SetDirect
from tests.support.clock import FakeClock
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect, FakeZtunnel
from tests.support.turns import turns_until
from tests.unit.agent.enrol.conftest import ADDRESS, POD

CAPTURED = CapturedPod("uid", 8, (ADDRESS,), workload_id=3, direct=True)


@pytest.fixture
def datapath() -> FakeDatapath:
    return FakeDatapath(CAPTURED)


@pytest.fixture
def direct() -> FakeDirect:
    return FakeDirect()


@pytest.fixture
def track(facts: Facts, datapath: FakeDatapath, direct: FakeDirect) -> KernelTrack:
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.adopted(POD.uid, Capture(POD.cookie, POD.addresses, direct=True))
    return KernelTrack(facts, datapath, direct)


def test_a_pod_that_is_gone_is_released_and_forgotten(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, direct: FakeDirect
) -> None:
    datapath.set_probes("uid", frozenset({80}))
    facts.book.gone("uid")
    assert track.take_steps()
    assert datapath.pods == {}
    assert direct.calls == [("released", "uid", 0)]
    assert facts.known.get("uid") == POD  # not written once more for a moment
    assert track.take_steps()
    assert facts.known.get("uid") is None
    assert datapath.probes == {}
    assert facts.book.pods() == {}
    assert not track.take_steps()


def test_a_release_that_fails_is_tried_again(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath
) -> None:
    facts.book.gone("uid")
    datapath.refuses = True
    track.take_steps()
    assert "uid" in datapath.pods
    assert facts.book.next_deadline_s(0.0) == RETRY_S
    datapath.refuses = False
    clock = facts.clock
    assert isinstance(clock, FakeClock)
    clock.pass_s(RETRY_S)
    track.take_steps()
    assert datapath.pods == {}


def test_a_pod_leaves_the_direct_path_and_comes_back(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, direct: FakeDirect
) -> None:
    facts.book.allowed_direct("uid", False)
    track.take_steps()
    assert not datapath.pods["uid"].direct
    assert direct.calls == [("released", "uid", 3)]  # its open connections are still known
    facts.book.allowed_direct("uid", True)
    track.take_steps()
    assert direct.calls[1:] == [("captured", "uid", 3, (ADDRESS,))]


def test_a_switch_that_fails_leaves_the_pod_as_it_was(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, direct: FakeDirect
) -> None:
    facts.book.allowed_direct("uid", False)
    datapath.refuses = True
    track.take_steps()
    assert facts.book.state("uid") == (PodState.CAPTURED, "kernel_refused")
    assert direct.calls == []


def test_a_capture_without_an_id_has_no_part_in_the_direct_path(
    track: KernelTrack, direct: FakeDirect
) -> None:
    track.tell_direct(replace(CAPTURED, workload_id=0))
    assert direct.calls == [("released", "uid", 0)]


def test_what_takes_long_is_made_in_a_thread(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "opened_again", lambda registration: nullcontext(5))
    asyncio.run(track.prepare("uid"))  # it is captured
    assert datapath.prepared == []
    facts.book.released("uid", 0.0)
    asyncio.run(track.prepare("uid"))
    ((*asked, thread),) = datapath.prepared
    assert asked == [5, POD.cookie, POD.addresses]
    assert thread is not threading.main_thread()


def test_a_namespace_that_vanished_is_not_captured(facts: Facts, track: KernelTrack) -> None:
    ztunnel = FakeZtunnel(7)
    facts.ztunnels[7] = ztunnel  # type: ignore[assignment]  # as much of one as is needed
    facts.book.ztunnel_joined(7)
    facts.book.added(AddToZtunnel("uid", 7, POD.cookie))
    track.take_steps()
    assert facts.book.pods()["uid"].netns is None


@pytest.mark.parametrize(
    ("remembered_s", "starts", "goes_direct"),
    [(120.0, False, False), (120.0, True, True), (0, False, True)],
)
def test_a_pod_that_ran_before_has_no_direct_path_until_the_host_has_forgotten(
    facts: Facts,
    track: KernelTrack,
    datapath: FakeDatapath,
    remembered_s: float,
    starts: bool,
    goes_direct: bool,
) -> None:
    datapath.remembered_s = remembered_s
    facts.book.released("uid", 0.0)
    facts.book.allowed_direct("uid", True)
    facts.book.starts("uid", int(starts))
    track._capture(CapturePod("uid", 7, POD.cookie, POD.addresses, direct=True), -1, (3, 4, 5))
    assert datapath.pods["uid"].direct is goes_direct
    assert not track.take_steps()
    if goes_direct:
        return
    assert facts.known.get("uid") == replace(POD, held_until_s=120.0)
    assert facts.book.next_deadline_s(0.0) == 120.0
    facts.clock.pass_s(120.0)  # type: ignore[attr-defined]  # a fake clock
    track.take_steps()
    assert datapath.pods["uid"].direct
    assert facts.known.get("uid") == POD


def test_it_waits_longer_while_what_it_dialled_before_is_open(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath.remembered_s = 120.0
    datapath.set_direct("uid", False)
    facts.book.direct_set(SetDirect("uid", False))
    monkeypatch.setattr(track.earlier, "has_dialled", lambda uid: True)
    assert track.take_steps()
    assert not track.take_steps()
    assert not datapath.pods["uid"].direct
    datapath.remembered_s = 0.0  # nothing is tracked any more
    facts.clock.pass_s(120.0)  # type: ignore[attr-defined]  # a fake clock
    assert track.take_steps()
    assert datapath.pods["uid"].direct


def test_the_track_waits_for_news_and_for_the_clock(facts: Facts, track: KernelTrack) -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(track.run())
            await asyncio.sleep(0)
            facts.book.gone("uid")
            facts.news()
            await turns_until(lambda: not facts.book.pods())
            task.cancel()

    asyncio.run(scenario())
    assert facts.known.get("uid") is None


HELD = Capture(POD.cookie, POD.addresses, 6, direct=True)


@pytest.mark.parametrize(
    ("held", "is_handover"),
    [
        (HELD, True),
        (replace(HELD, ztunnel=None), False),  # a past run's, or one that has lost a part
        (replace(HELD, netns=HELD.netns + 1), False),
        (replace(HELD, addresses=(ADDRESS, ADDRESS)), False),
        (replace(HELD, direct=False), False),
    ],
)
def test_a_pod_that_is_captured_just_so_only_gets_other_listeners(
    held: Capture, is_handover: bool
) -> None:
    step = CapturePod("uid", 7, POD.cookie, POD.addresses, direct=True)
    assert plan.is_handover(held, step) is is_handover


def test_a_handover_leaves_the_rest_of_a_capture_alone(
    facts: Facts, track: KernelTrack, datapath: FakeDatapath, direct: FakeDirect
) -> None:
    for ztunnel in (6, 7):
        step = CapturePod("uid", ztunnel, POD.cookie, POD.addresses, direct=True)
        track._capture(step, -1, (3, 4, 5))
        held = facts.book.pods()["uid"].capture
        assert held is not None
        assert held.ztunnel == ztunnel
    assert datapath.handed_over == ["uid"], "the first one is of a past run"
    assert direct.calls == [("captured", "uid", 1, POD.addresses)]
