"""Any run of events: no prefix of the steps taken leads around the ztunnel."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.enrol import plan
from agent.enrol.book import Book
from agent.enrol.plan import (
    AddToZtunnel,
    CapturePod,
    DeleteFromZtunnel,
    Forget,
    Release,
    SetDirect,
)
from tests.unit.agent.enrol.world import EVENTS, EVENTS_A_RUN, World, happen


def assert_agenda_is_the_plan(book: Book, now_s: float) -> None:
    """Assert that the book's remembered plans are those that planning anew would give."""
    everything = [plan.steps(pod, book.node, now_s)[:1] for pod in book.pods().values()]
    first = [step for found in everything for step in found]
    assert sorted(map(str, book.ready(now_s))) == sorted(map(str, first))
    due = (
        plan.due_s(pod, plan.steps(pod, book.node, now_s), now_s) for pod in book.pods().values()
    )
    assert book.next_deadline_s(now_s) == min((d for d in due if d is not None), default=None)
    reportable = {uid for uid, pod in book.pods().items() if plan.reportable(pod) is not None}
    assert book.report().keys() == reportable
    kernel = [each for each in first if isinstance(each, CapturePod | SetDirect | Release | Forget)]
    assert sorted(map(str, book.kernel_steps(now_s))) == sorted(map(str, kernel))
    for ztunnel in book.node.ztunnels:
        track = [e for e in first if isinstance(e, AddToZtunnel | DeleteFromZtunnel)]
        mine = [each for each in track if each.ztunnel == ztunnel]
        leaving = [each for each in mine if isinstance(each, DeleteFromZtunnel)]
        assert book.ztunnel_step(ztunnel, now_s) in (leaving or mine or [None])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
@example(429_142)  # a report that takes a pod back, and whose answer is lost, before its capture
def test_no_prefix_of_the_steps_leads_around_the_ztunnel(seed: int) -> None:
    world, pick = World(), random.Random(seed)
    for name in pick.choices(list(EVENTS), list(EVENTS.values()), k=EVENTS_A_RUN):
        happen(world, name, pick)
        assert_agenda_is_the_plan(world.book, world.now_s)
        for uid, held in world.kernel.items():
            pod = world.book.pods().get(uid)
            assert pod is not None, "captured, and nobody remembers it"
            assert pod.capture is not None
            assert pod.capture.netns == held.netns
    world.join()
    world.settle()
    for uid, netns in world.alive.items():
        captured = world.kernel.get(uid)
        if world.wanted.get(uid):
            assert captured is not None, "an enrolled pod never gets in"
            assert captured.netns == netns
            assert (captured.ztunnel, uid, netns) in world.listening
            assert uid in world.believed
            assert captured.direct is world.direct.get(uid, True)
        elif world.wanted.get(uid) is False:
            assert captured is None, "a pod never gets out"
            assert uid not in {each[1] for each in world.listening}, "a ztunnel keeps it for ever"
    assert set(world.kernel) <= set(world.alive)
    assert set(world.book.pods()) == set(world.alive)
