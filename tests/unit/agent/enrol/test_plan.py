"""The order of a pod's steps: capture is never around a ztunnel, whatever happens in between."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.enrol import plan
from agent.enrol.book import RETRY_S, Book
from agent.enrol.plan import (
    AddToZtunnel,
    AwaitDrain,
    Capture,
    CapturePod,
    DeleteFromZtunnel,
    Forget,
    Handover,
    NodeFacts,
    PodFacts,
    PodState,
    Release,
    ReportPod,
    SetDirect,
)
from control.model.address import Address, parse_address

ADDRESSES = (parse_address("10.0.0.1"), parse_address("fd00::1"))
OTHER = (parse_address("10.0.0.2"),)
ONE = NodeFacts((7,), 2.0)
UP = PodFacts("u", 100, ADDRESSES, enrolled=True)
IN_FORCE = replace(UP, capture=Capture(100, ADDRESSES, 7), handovers=(Handover(7, 100),))


def test_enrolment_captures_last_and_reports_after_that() -> None:
    assert plan.steps(UP, ONE, 0) == (
        AddToZtunnel("u", 7, 100),
        CapturePod("u", 7, 100, ADDRESSES),
        ReportPod("u", captured=True),
    )


def test_unenrolment_lets_peers_know_before_it_releases() -> None:
    assert plan.steps(replace(IN_FORCE, enrolled=False), ONE, 0) == (
        ReportPod("u", captured=False),
        AwaitDrain("u", None),
        Release("u"),
        DeleteFromZtunnel("u", 7),
    )


def test_a_ztunnel_that_connects_while_a_pod_drains_serves_it_to_the_end() -> None:
    leaving = replace(IN_FORCE, enrolled=False, withdrawn_s=10.0, handovers=())
    assert plan.steps(leaving, NodeFacts((8,), 2.0), 11.0) == (
        AddToZtunnel("u", 8, 100),
        CapturePod("u", 8, 100, ADDRESSES),
        AwaitDrain("u", 12.0),
        Release("u"),
    )
    refused = replace(leaving, failure="ztunnel_refused")
    assert plan.steps(refused, NodeFacts((8,), 2.0), 11.0)[0] == AwaitDrain("u", 12.0)
    assert plan.steps(leaving, NodeFacts((8,), 2.0), 12.0)[0] == Release("u")


def test_the_drain_counts_from_the_accepted_report() -> None:
    leaving = replace(IN_FORCE, enrolled=False, withdrawn_s=10.0)
    assert plan.steps(leaving, ONE, 11.9)[0] == AwaitDrain("u", 12.0)
    assert plan.steps(leaving, ONE, 12.0)[0] == Release("u")


def test_a_deleted_pod_is_released_at_once() -> None:
    assert plan.steps(replace(IN_FORCE, netns=None), ONE, 0) == (
        Release("u"),
        DeleteFromZtunnel("u", 7),
        Forget("u"),
    )


def test_the_same_uid_in_another_namespace_is_replaced() -> None:
    assert plan.steps(replace(IN_FORCE, netns=200), ONE, 0)[:3] == (
        Release("u"),
        AddToZtunnel("u", 7, 200),
        CapturePod("u", 7, 200, ADDRESSES),
    )


def test_older_ztunnels_drop_a_replaced_namespace() -> None:
    upgrading = NodeFacts((7, 8), 2.0)
    assert DeleteFromZtunnel("u", 7) in plan.steps(replace(IN_FORCE, netns=200), upgrading, 0)


@pytest.mark.parametrize(
    "pod",
    [
        UP,
        replace(UP, enrolled=None),
        replace(IN_FORCE, enrolled=None),
        IN_FORCE,
        replace(UP, addresses=()),
    ],
)
def test_nothing_is_done_or_undone_without_a_ztunnel(pod: PodFacts) -> None:
    assert plan.steps(pod, NodeFacts((), 2.0), 0) == ()


def test_a_new_ztunnel_gets_the_listeners_changed() -> None:
    assert plan.steps(IN_FORCE, NodeFacts((7, 8), 2.0), 0) == (
        AddToZtunnel("u", 8, 100),
        CapturePod("u", 8, 100, ADDRESSES),
    )


def test_what_a_past_run_captured_is_given_to_the_ztunnel_again() -> None:
    adopted = PodFacts("u", 100, ADDRESSES, capture=Capture(100, ADDRESSES))
    assert plan.steps(adopted, ONE, 0)[:2] == (
        AddToZtunnel("u", 7, 100),
        CapturePod("u", 7, 100, ADDRESSES),
    )


def test_a_changed_address_is_captured_anew_in_place() -> None:
    moved = replace(IN_FORCE, addresses=OTHER)
    assert plan.steps(moved, ONE, 0) == (CapturePod("u", 7, 100, OTHER),)


DIRECT = replace(IN_FORCE, direct=True, capture=Capture(100, ADDRESSES, 7, direct=True))


def test_a_pod_that_may_go_direct_is_captured_so() -> None:
    assert plan.steps(replace(UP, direct=True), ONE, 0)[:2] == (
        AddToZtunnel("u", 7, 100),
        CapturePod("u", 7, 100, ADDRESSES, direct=True),
    )
    assert plan.steps(DIRECT, ONE, 0) == ()


def test_the_switch_needs_no_ztunnel() -> None:
    nobody = NodeFacts((), 2.0)
    assert plan.steps(replace(DIRECT, direct=False), nobody, 0) == (SetDirect("u", False),)
    assert plan.steps(replace(IN_FORCE, direct=True), nobody, 0) == (SetDirect("u", True),)


def test_who_leaves_the_mesh_leaves_the_direct_path_first() -> None:
    leaving = plan.steps(replace(DIRECT, enrolled=False), ONE, 0)
    assert leaving[:2] == (SetDirect("u", False), ReportPod("u", captured=False))
    gone = plan.steps(replace(DIRECT, netns=None), ONE, 0)
    assert gone[0] == Release("u")  # which ends both in one step


def test_a_draining_pod_does_not_come_back_to_the_direct_path() -> None:
    leaving = replace(DIRECT, enrolled=False, withdrawn_s=10.0, handovers=())
    node = NodeFacts((8,), 2.0)
    assert plan.steps(leaving, node, 11.0)[:3] == (
        SetDirect("u", False),
        AddToZtunnel("u", 8, 100),
        CapturePod("u", 8, 100, ADDRESSES, direct=False),
    )


def test_a_past_run_leaves_the_switch_as_it_was() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, None)
    book.adopted("u", Capture(100, ADDRESSES, direct=True))
    assert list(book.ready(0)) == []
    book.allowed_direct("u", False)
    assert list(book.ready(0)) == [SetDirect("u", False)]
    book.failed("u", "kernel", 0.0)
    assert list(book.ready(1.0)) == []
    book.direct_set(SetDirect("u", False))
    assert list(book.ready(RETRY_S)) == []


def test_a_failed_step_waits_and_a_deletion_does_not() -> None:
    book = Book(2.0)
    book.ztunnel_joined(7)
    book.registered("u", 100, ADDRESSES, True)
    book.failed("u", "ztunnel_refused", 0.0)
    assert book.state("u") == (PodState.FAILED, "ztunnel_refused")
    assert list(book.ready(1.0)) == []
    assert book.next_deadline_s(1.0) == RETRY_S
    assert list(book.ready(RETRY_S)) == [AddToZtunnel("u", 7, 100)]
    book.gone("u")
    assert list(book.ready(1.0)) == [Forget("u")]


def test_an_add_that_is_under_way_is_undone_before_the_pod_is_forgotten() -> None:
    book = Book(2.0)
    book.ztunnel_joined(7)
    book.registered("u", 100, ADDRESSES, True)
    (step,) = book.ready(0)
    assert isinstance(step, AddToZtunnel)
    book.adding(step)
    book.gone("u")
    assert list(book.ready(0)) == [DeleteFromZtunnel("u", 7)]
    book.added(step)
    assert list(book.ready(0)) == [DeleteFromZtunnel("u", 7)]


def test_a_report_on_its_way_counts_as_believed() -> None:
    book = Book(2.0)
    book.ztunnel_joined(7)
    book.registered("u", 100, ADDRESSES, True)
    book.adding(AddToZtunnel("u", 7, 100))
    book.added(AddToZtunnel("u", 7, 100))
    book.captured(CapturePod("u", 7, 100, ADDRESSES))
    book.reported(frozenset(), 1.0)  # an older one, sent before the capture
    book.reporting({"u"})  # its answer never comes
    book.wanted("u", False, None)
    assert list(book.ready(100.0)) == [ReportPod("u", captured=False)]


@pytest.mark.parametrize(
    ("pod", "node", "expected"),
    [
        (UP, NodeFacts((), 2.0), (PodState.PENDING, "no_ztunnel")),
        (UP, ONE, (PodState.PENDING, "enrolling")),
        (replace(UP, addresses=()), ONE, (PodState.PENDING, "no_address")),
        (replace(UP, enrolled=None), ONE, (PodState.PENDING, "no_intent")),
        (replace(UP, enrolled=False), ONE, (PodState.NOT_ENROLLED, "")),
        (replace(UP, failure="netns"), ONE, (PodState.FAILED, "netns")),
        (IN_FORCE, ONE, (PodState.CAPTURED, "")),
        (IN_FORCE, NodeFacts((), 2.0), (PodState.CAPTURED, "no_ztunnel")),
        (replace(IN_FORCE, enrolled=None), ONE, (PodState.CAPTURED, "")),
        (replace(IN_FORCE, enrolled=False), ONE, (PodState.RELEASING, "reporting")),
        (replace(IN_FORCE, enrolled=False, withdrawn_s=1.0), ONE, (PodState.RELEASING, "draining")),
        (replace(IN_FORCE, netns=None), ONE, (PodState.RELEASING, "namespace_gone")),
        (replace(IN_FORCE, netns=5), ONE, (PodState.RELEASING, "namespace_replaced")),
    ],
)
def test_states(pod: PodFacts, node: NodeFacts, expected: tuple[PodState, str]) -> None:
    assert plan.state(pod, node) == expected


# A world in which steps are taken one by one, in any order, and anything may happen in between.


@dataclass
class World:
    """The real world, beside the book's beliefs about it."""

    book: Book = field(default_factory=lambda: Book(2.0))
    now_s: float = 0.0
    listening: set[tuple[int, str, int]] = field(default_factory=set)  # (ztunnel, uid, namespace)
    kernel: dict[str, Capture] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)  # uid → namespace it lives in
    wanted: dict[str, bool] = field(default_factory=dict)
    direct: dict[str, bool] = field(default_factory=dict)  # uid → what the control plane allows
    believed: frozenset[str] = frozenset()  # what the control plane tells peers
    changed_s: dict[str, float] = field(default_factory=dict)  # uid → when it stopped to believe
    ztunnels: list[int] = field(default_factory=list)
    under_way: dict[int, AddToZtunnel] = field(default_factory=dict)
    numbers: int = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def is_leaving(self, uid: str) -> bool:
        """And the agent has heard of it: after a restart the last good state holds until then."""
        return self.book.pods()[uid].enrolled is False

    def take(self, step: plan.Step, succeeds: bool) -> None:
        match step:
            case AddToZtunnel(_, ztunnel, _):
                if ztunnel not in self.under_way:
                    self.book.adding(step)
                    self.under_way[ztunnel] = step
            case CapturePod(uid, ztunnel, netns, addresses):
                self.capture(step, uid, ztunnel, netns, addresses, succeeds)
            case SetDirect(uid, direct):
                assert not (direct and self.is_leaving(uid)), "direct while it leaves"
                if succeeds:
                    self.kernel[uid] = replace(self.kernel[uid], direct=direct)
                    self.book.direct_set(step)
                else:
                    self.book.failed(uid, "kernel", self.now_s)
            case Release(uid):
                self.release(uid, succeeds)
            case DeleteFromZtunnel(uid, ztunnel):
                if ztunnel not in self.under_way:
                    held = self.kernel.get(uid)
                    assert held is None or held.ztunnel != ztunnel, "dropped under a capture"
                    self.listening -= {e for e in self.listening if e[:2] == (ztunnel, uid)}
                    self.book.removed(step)
            case Forget(uid):
                assert uid not in self.kernel, "forgotten while captured"
                held_by = {e for e in self.listening if e[1] == uid and e[0] in self.ztunnels}
                assert not held_by, "a ztunnel still holds the namespace"
                self.book.forgotten(uid)
            case ReportPod() | AwaitDrain():
                pass

    def capture(
        self,
        step: CapturePod,
        uid: str,
        ztunnel: int,
        netns: int,
        addresses: tuple[Address, ...],
        succeeds: bool,
    ) -> None:
        assert (ztunnel, uid, netns) in self.listening, "captured before anybody listens"
        assert ztunnel in self.ztunnels
        assert not any(c.netns == netns for u, c in self.kernel.items() if u != uid)
        if succeeds:
            assert not (step.direct and self.is_leaving(uid)), "direct while it leaves"
            self.kernel[uid] = Capture(netns, addresses, ztunnel, step.direct)
            self.book.captured(step)
        else:
            self.book.failed(uid, "map_full", self.now_s)

    def release(self, uid: str, succeeds: bool) -> None:
        held = self.kernel[uid]
        if self.alive.get(uid) == held.netns:
            assert self.wanted.get(uid) is False, "a pod of the mesh was let out"
            assert not held.direct, "released while others reach it directly"
            assert uid not in self.believed, "released while peers use HBONE"
            assert self.now_s >= self.changed_s.get(uid, 0.0) + 2.0, "released before the drain"
        if succeeds:
            del self.kernel[uid]
            self.book.released(uid)
        else:
            self.book.failed(uid, "kernel", self.now_s)

    def finish_add(self, ztunnel: int, succeeds: bool) -> None:
        step = self.under_way.pop(ztunnel, None)
        if step is None:
            return
        if succeeds:
            self.listening -= {e for e in self.listening if e[:2] == (ztunnel, step.uid)}
            self.listening.add((ztunnel, step.uid, step.netns))
            self.book.added(step)
        else:
            self.book.failed(step.uid, "ztunnel_refused", self.now_s)

    def register(self, uid: str) -> None:
        self.alive[uid] = self.number()
        self.book.registered(uid, self.alive[uid], ADDRESSES, self.wanted.get(uid))
        if uid in self.wanted:
            self.book.allowed_direct(uid, self.direct.get(uid, True))

    def delete(self, uid: str) -> None:
        self.alive.pop(uid, None)
        self.book.gone(uid)

    def want(self, uid: str, enrolled: bool, addresses: tuple[Address, ...] | None) -> None:
        self.wanted[uid] = enrolled
        if uid in self.book.pods():
            self.book.wanted(uid, enrolled, addresses)
            self.book.allowed_direct(uid, self.direct.get(uid, True))

    def switch(self, uid: str) -> None:
        self.direct[uid] = not self.direct.get(uid, True)
        if uid in self.wanted:
            self.want(uid, self.wanted[uid], None)

    def report(self, arrives: bool, answered: bool) -> None:
        truth = self.book.report()
        self.book.reporting(truth)
        if arrives:
            for uid in self.believed - truth:
                self.changed_s[uid] = self.now_s
            self.believed = truth
            if answered:
                self.book.reported(truth, self.now_s)

    def join(self) -> None:
        if len(self.ztunnels) < 3:
            self.ztunnels.append(self.number())
            self.book.ztunnel_joined(self.ztunnels[-1])

    def leave(self, pick: random.Random) -> None:
        if self.ztunnels:
            ztunnel = self.ztunnels.pop(pick.randrange(len(self.ztunnels)))
            self.under_way.pop(ztunnel, None)
            self.listening -= {e for e in self.listening if e[0] == ztunnel}
            self.book.ztunnel_left(ztunnel)

    def restart(self) -> None:
        """The agent dies and adopts what it finds; ztunnels have to connect again."""
        self.ztunnels.clear()
        self.under_way.clear()
        self.listening.clear()
        self.book = Book(2.0)
        for uid, netns in self.alive.items():
            self.book.registered(uid, netns, ADDRESSES, None)
        for uid, held in self.kernel.items():
            self.book.adopted(uid, Capture(held.netns, held.addresses, direct=held.direct))

    def hear_intents(self) -> None:
        """The control plane may be away for long after a restart."""
        for uid, enrolled in self.wanted.items():
            if uid in self.book.pods():
                self.want(uid, enrolled, None)

    def settle(self) -> None:
        """No more surprises: everything that can be done is done."""
        self.hear_intents()
        for _ in range(200):
            self.now_s += 1.0
            self.report(arrives=True, answered=True)
            for step in self.book.ready(self.now_s):
                self.take(step, succeeds=True)
            for ztunnel in list(self.under_way):
                self.finish_add(ztunnel, succeeds=True)


# Weights: most of the time things go on; a run has some two hundred events.
EVENTS = {
    "step": 30, "finish": 15, "tick": 6, "report": 5, "report_lost": 2, "register": 2, "delete": 1,
    "want": 3, "unwant": 2, "move": 1, "switch": 3, "join": 2, "leave": 1, "restart": 2, "hear": 3,
}  # fmt: skip
EVENTS_A_RUN = 200


def happen(world: World, name: str, pick: random.Random) -> None:
    uid = pick.choice(("a", "b"))
    match name:
        case "step":
            ready = list(world.book.ready(world.now_s))
            if ready:
                world.take(pick.choice(ready), succeeds=pick.random() < 0.85)
        case "finish":
            for ztunnel in list(world.under_way):
                world.finish_add(ztunnel, succeeds=pick.random() < 0.85)
        case "register":
            world.register(uid)
        case "delete":
            world.delete(uid)
        case "want" | "unwant":
            world.want(uid, name == "want", None)
        case "move":
            world.want(uid, world.wanted.get(uid, True), pick.choice((ADDRESSES, OTHER)))
        case "switch":
            world.switch(uid)
        case "report":
            world.report(arrives=True, answered=True)
        case "report_lost":
            world.report(arrives=pick.random() < 0.5, answered=False)
        case "join":
            world.join()
        case "leave":
            world.leave(pick)
        case "restart":
            world.restart()
        case "hear":
            world.hear_intents()
        case "tick":
            world.now_s += pick.choice((0.5, 2.0, RETRY_S))


def assert_agenda_is_the_plan(book: Book, now_s: float) -> None:
    """Assert that the book's remembered plans are those that planning anew would give."""
    everything = [plan.steps(pod, book.node, now_s)[:1] for pod in book.pods().values()]
    first = [step for found in everything for step in found]
    assert sorted(map(str, book.ready(now_s))) == sorted(map(str, first))
    due = (plan.due_s(pod, book.node, now_s) for pod in book.pods().values())
    assert book.next_deadline_s(now_s) == min((d for d in due if d is not None), default=None)
    assert book.report() == {uid for uid, pod in book.pods().items() if plan.reportable(pod)}
    kernel = [each for each in first if isinstance(each, CapturePod | SetDirect | Release | Forget)]
    assert sorted(map(str, book.kernel_steps(now_s))) == sorted(map(str, kernel))
    for ztunnel in book.node.ztunnels:
        track = [e for e in first if isinstance(e, AddToZtunnel | DeleteFromZtunnel)]
        mine = [each for each in track if each.ztunnel == ztunnel]
        leaving = [each for each in mine if isinstance(each, DeleteFromZtunnel)]
        assert book.ztunnel_step(ztunnel, now_s) in (leaving or mine or [None])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
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
    assert set(world.kernel) <= set(world.alive)
    assert set(world.book.pods()) == set(world.alive)
