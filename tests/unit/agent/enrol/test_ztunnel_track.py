"""A ztunnel's track: its requests under way, and the snapshot's end once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from agent import registry
from agent.enrol import ztunnel_track
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import KernelTrack
from agent.enrol.plan import AddToZtunnel, Capture, DeleteFromZtunnel, Release
from agent.enrol.ztunnel_track import REQUESTS_MAX, ZtunnelTrack
from agent.zds import Descriptors, ZtunnelRefused
from tests.support.kernel.fake_datapath import FakeDatapath, FakeDirect, FakeZtunnel
from tests.support.turns import turns_until
from tests.unit.agent.enrol.conftest import POD


def run_until(
    facts: Facts,
    ztunnel: FakeZtunnel,
    is_over: Callable[[], bool],
    *,
    first: Collection[str] = (),
) -> None:
    """Let the track work until a condition holds."""
    kernel = KernelTrack(facts, FakeDatapath(), FakeDirect())
    connected: Any = ztunnel
    track = ZtunnelTrack(facts, kernel, connected, first)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(track.run())
            await turns_until(is_over)
            task.cancel()

    asyncio.run(scenario())


def test_a_ztunnel_without_pods_gets_the_end_of_the_snapshot_once(facts: Facts) -> None:
    ztunnel = FakeZtunnel(7)
    facts.book.ztunnel_joined(7)
    run_until(facts, ztunnel, lambda: bool(ztunnel.asked))
    assert ztunnel.asked == ["snapshot"]


def test_an_older_ztunnel_is_not_told_to_drop_what_it_serves(facts: Facts) -> None:
    older = FakeZtunnel(7)
    facts.book.ztunnel_joined(7)
    facts.book.ztunnel_joined(8)
    facts.known.put(POD)
    run_until(facts, older, lambda: "snapshot" in older.asked)
    assert older.asked == ["keep uid", "snapshot"]


def test_the_end_of_the_snapshot_drops_no_pod_that_is_captured_still(facts: Facts) -> None:
    """An agent that was restarted while pods leave: the drain ended before they were told again,
    and the ztunnel dropped them before the kernel let go."""
    ztunnel, uid = FakeZtunnel(7), POD.uid
    facts.known.put(POD)
    facts.book.registered(uid, POD.cookie, POD.addresses, False)
    facts.book.adopted(uid, Capture(POD.cookie, POD.addresses))
    facts.book.reported(frozenset(), -facts.book.node.drain_s)
    facts.book.ztunnel_joined(7)
    assert facts.book.kernel_steps(0.0) == [Release(uid)]
    run_until(facts, ztunnel, lambda: "snapshot" in ztunnel.asked)
    assert ztunnel.asked == [f"keep {uid}", "snapshot"]
    facts.book.released(uid, 0.0)
    assert facts.book.ztunnel_step(7, 0.0) is None
    assert facts.book.ztunnel_step(7, 30.0) == DeleteFromZtunnel(uid, 7)


def test_one_that_is_going_to_end_gets_no_end_of_a_snapshot(facts: Facts) -> None:
    leaving = FakeZtunnel(7)
    leaving.is_leaving = True
    facts.book.ztunnel_joined(7)
    turns = iter(range(20))
    run_until(facts, leaving, lambda: next(turns) == 19)
    assert leaving.asked == []


def test_every_other_one_goes_before_one_that_is_going_to_end(facts: Facts) -> None:
    facts.book.ztunnel_joined(7, started=100)
    facts.book.ztunnel_joined(8, started=200)
    facts.book.ztunnel_leaving(8)
    assert facts.book.node.newest == 7
    facts.book.ztunnel_left(7)
    assert facts.book.node.newest == 8
    facts.book.ztunnel_joined(9, started=50)
    assert facts.book.node.newest == 9


def test_one_that_is_being_replaced_is_not_the_newest_because_it_connects_last(
    facts: Facts,
) -> None:
    """After a restart of the agent: the new one was told nothing, never became ready, and a
    rolling update waited for it for ever."""
    facts.book.ztunnel_joined(7, started=200)
    facts.book.ztunnel_joined(8, started=100)
    assert facts.book.node.newest == 7
    newest = FakeZtunnel(7)
    run_until(facts, newest, lambda: bool(newest.asked))
    assert newest.asked == ["snapshot"]
    facts.book.ztunnel_left(7)
    facts.book.ztunnel_joined(9, started=100)
    assert facts.book.node.newest == 9


def test_a_pod_that_left_is_deleted_even_if_the_ztunnel_does_not_know_it(facts: Facts) -> None:
    def refuse(request: str) -> None:
        if request.startswith("delete"):
            raise ZtunnelRefused("unknown pod")

    ztunnel = FakeZtunnel(7)
    ztunnel.answer = refuse
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.ztunnel_joined(7)
    facts.book.added(AddToZtunnel(POD.uid, 7, POD.cookie))
    facts.listeners[POD.uid, 7] = Descriptors([])
    facts.book.gone(POD.uid)
    run_until(facts, ztunnel, lambda: "snapshot" in ztunnel.asked)
    assert ztunnel.asked == ["delete uid", "snapshot"]
    assert facts.listeners == {}


def test_a_pod_whose_namespace_vanished_is_not_offered(facts: Facts) -> None:
    ztunnel = FakeZtunnel(7)
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.ztunnel_joined(7)
    run_until(facts, ztunnel, lambda: POD.uid not in facts.book.pods())
    assert "add uid" not in ztunnel.asked


@pytest.fixture
def many(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Uids of more pods than are asked for at once; every namespace is there."""
    monkeypatch.setattr(registry, "opened_again", lambda registration: nullcontext(0))
    uids = [f"uid-{number}" for number in range(REQUESTS_MAX + 4)]
    for number, uid in enumerate(uids):
        facts.known.put(replace(POD, uid=uid, cookie=100 + number))
        facts.book.registered(uid, 100 + number, POD.addresses, True)
    return uids


def test_a_ztunnel_of_ours_is_asked_for_several_pods_at_once(facts: Facts, many: list[str]) -> None:
    ztunnel = FakeZtunnel(7)
    facts.book.ztunnel_joined(7, first=[many[-1]])
    turns = iter(range(50))
    run_until(facts, ztunnel, lambda: next(turns) == 49)
    assert ztunnel.asked[0] == f"add {many[-1]}"
    assert len(ztunnel.asked) == REQUESTS_MAX == len(set(ztunnel.asked))
    assert "snapshot" not in ztunnel.asked


def test_pods_in_use_have_a_ztunnel_to_themselves(facts: Facts, many: list[str]) -> None:
    """The others' listeners and certificates took the time of those that somebody waited for."""
    ztunnel, first = FakeZtunnel(7), many[-2:]
    facts.book.ztunnel_joined(7, first=first)
    turns = iter(range(50))
    run_until(facts, ztunnel, lambda: next(turns) == 49, first=first)
    assert ztunnel.asked == [f"add {uid}" for uid in first]


def test_the_others_come_when_those_have_an_answer(facts: Facts, many: list[str]) -> None:
    ztunnel, first = FakeZtunnel(7), many[-2:]
    facts.book.ztunnel_joined(7, first=first)

    def one_by_one() -> bool:
        for uid in first:
            if uid in ztunnel.adds:
                ztunnel.adds[uid].error = ZtunnelRefused(uid)
                ztunnel.adds[uid].finish()
        return len(ztunnel.asked) == len(first) + REQUESTS_MAX

    run_until(facts, ztunnel, one_by_one, first=first)


def test_the_others_wait_for_them_no_longer_than_that(
    facts: Facts, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztunnel_track, "FIRST_S", 0.0)
    ztunnel, first = FakeZtunnel(7), many[-2:]
    facts.book.ztunnel_joined(7, first=first)
    run_until(facts, ztunnel, lambda: len(ztunnel.asked) == REQUESTS_MAX, first=first)
    assert ztunnel.asked[:2] == [f"add {uid}" for uid in first]


def test_a_ztunnel_that_ends_while_a_capture_is_prepared_leaks_no_listener(
    facts: Facts, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were in nobody's hands until the thread was done; who is told that it ended closes
    those of `facts.listeners`."""
    ztunnel, begun = FakeZtunnel(7), list[str]()

    async def prepare(kernel: KernelTrack, uid: str) -> None:
        begun.append(uid)
        await asyncio.Event().wait()

    def is_preparing() -> bool:
        for request in ztunnel.adds.values():
            request.descriptors = [os.dup(0) for _ in range(3)]
            request.finish()
        return bool(begun)

    monkeypatch.setattr(KernelTrack, "prepare", prepare)
    facts.book.ztunnel_joined(7)
    run_until(facts, ztunnel, is_preparing)
    assert {(uid, 7) for uid in begun} == set(facts.listeners)
    for each in facts.listeners.values():
        assert len(each) == 3
        each.close()


def test_one_of_another_make_is_asked_for_one_pod_at_a_time(facts: Facts, many: list[str]) -> None:
    ztunnel = FakeZtunnel(7)
    ztunnel.is_ours = ztunnel.is_side_by_side = False
    facts.book.ztunnel_joined(7)

    def next_one() -> bool:
        assert len(ztunnel.asked) <= 1 + sum(
            facts.book.pods()[uid].failure is not None for uid in many
        )
        for uid, request in ztunnel.adds.items():
            request.error = ZtunnelRefused(uid)
            request.finish()
        return len(ztunnel.asked) == len(many) + 1

    run_until(facts, ztunnel, next_one)
    assert ztunnel.asked[-1] == "snapshot"


def test_a_namespace_that_cannot_be_looked_for_is_tried_again_later(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent was out of descriptors: the track asked again at once, for ever."""

    def no_means(cookies: set[int]) -> dict[int, tuple[str, int]]:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(registry, "find", no_means)
    ztunnel = FakeZtunnel(7)
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.ztunnel_joined(7)
    run_until(facts, ztunnel, lambda: "snapshot" in ztunnel.asked)
    assert facts.book.pods()[POD.uid].failure == "netns_gone"
