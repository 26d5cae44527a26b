"""The order of a pod's steps, case by case. (Any run of events: test_plan_runs.py.)"""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.access import REPORT_TIMEOUT_S
from agent.enrol import plan
from agent.enrol.book import RETRY_S, Book
from agent.enrol.plan import (
    NOTICE_BY_POD_S,
    NOTICE_S,
    UNHEARD_S_MAX,
    AddToZtunnel,
    AwaitDrain,
    AwaitPeers,
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
from tests.unit.agent.enrol.world import ADDRESSES, OTHER

ONE = NodeFacts((7,), 2.0)
UP = PodFacts("u", 100, ADDRESSES, enrolled=True)
IN_FORCE = replace(
    UP, capture=Capture(100, ADDRESSES, 7), handovers=(Handover(7, 100),), hbone=True
)


STARTS = replace(UP, waits=1)
LISTENS = replace(UP, handovers=(Handover(7, 100),), offered_s=10.0)
CAPTURE = CapturePod("u", 7, 100, ADDRESSES)


def due_s(pod: PodFacts, node: NodeFacts, now_s: float) -> float | None:
    return plan.due_s(pod, plan.steps(pod, node, now_s), now_s)


def test_a_pod_that_starts_is_captured_before_it_is_reported() -> None:
    report = ReportPod("u", captured=True)
    assert plan.steps(STARTS, ONE, 0) == (AddToZtunnel("u", 7, 100), CAPTURE, report)
    assert plan.reportable(replace(LISTENS, waits=1)) is None


def test_peers_of_a_pod_that_runs_know_before_it_is_captured() -> None:
    report = ReportPod("u", captured=True)
    assert plan.steps(UP, ONE, 0) == (
        AddToZtunnel("u", 7, 100),
        report,
        AwaitPeers("u", None),
        CAPTURE,
        report,
    )
    assert plan.reportable(UP) is None, "nobody listens yet"
    assert plan.steps(LISTENS, ONE, 10.1)[:2] == (report, AwaitPeers("u", 10.0 + UNHEARD_S_MAX))
    assert plan.reportable(LISTENS) == ADDRESSES
    told = replace(LISTENS, announced_s=10.2)
    end_s = 10.2 + NOTICE_S
    assert plan.steps(told, ONE, 10.3)[:2] == (AwaitPeers("u", end_s), CAPTURE)
    assert due_s(told, ONE, 10.3) == end_s
    assert plan.steps(told, ONE, end_s)[0] == CAPTURE
    assert plan.state(told, ONE) == (PodState.PENDING, "announcing")


def test_peers_have_longer_where_they_may_hear_of_it_by_the_pod() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, True)
    book.ztunnel_joined(7)
    book.added(AddToZtunnel("u", 7, 100), 10.0)
    book.all_hear(False)
    book.reported({"u"}, 10.2)
    assert book.kernel_steps(10.2 + NOTICE_S) == []
    assert book.next_deadline_s(10.3) == 10.2 + NOTICE_BY_POD_S
    book.all_hear(True)
    assert book.kernel_steps(10.2 + NOTICE_S) == [CAPTURE]


def test_peers_that_may_have_heard_the_contrary_are_told_again() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, True)
    book.ztunnel_joined(7)
    book.added(AddToZtunnel("u", 7, 100), 10.0)
    book.reporting({"u"})
    book.reported({"u"}, 10.2)
    book.reporting(set())  # a report without it, whose answer is lost
    assert book.kernel_steps(10.2 + NOTICE_S) == []
    book.reporting({"u"})
    book.reported({"u"}, 11.0)
    assert book.kernel_steps(11.0) == []
    assert book.kernel_steps(11.0 + NOTICE_S) == [CAPTURE]


def test_a_control_plane_that_is_away_keeps_nobody_out_for_long() -> None:
    until_s = 10.0 + UNHEARD_S_MAX
    assert due_s(LISTENS, ONE, 11.0) == until_s
    assert UNHEARD_S_MAX > REPORT_TIMEOUT_S, "a report on its way may be accepted"
    assert plan.steps(LISTENS, ONE, until_s)[0] == CAPTURE


@pytest.mark.parametrize(
    "pod",
    [
        replace(LISTENS, failure="kernel"),
        replace(LISTENS, enrolled=None),
        replace(LISTENS, enrolled=False),
        replace(LISTENS, netns=None),
        replace(LISTENS, handovers=(Handover(7, 100, ready=False),)),
        replace(LISTENS, handovers=(Handover(7, 99),)),
        replace(LISTENS, handovers=()),
    ],
)
def test_peers_are_told_of_nobody_who_may_not_be_captured(pod: PodFacts) -> None:
    assert plan.reportable(pod) is None


def test_the_notice_begins_anew_after_a_change_of_mind_or_a_failure() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, True)
    book.ztunnel_joined(7)
    step = AddToZtunnel("u", 7, 100)
    book.adding(step)
    assert book.report() == {}
    book.added(step, 10.0)
    assert book.report() == {"u": ADDRESSES}
    assert book.kernel_steps(10.1) == []
    book.reported({"u"}, 10.2)
    assert book.kernel_steps(10.3) == []
    assert book.kernel_steps(10.2 + NOTICE_S) == [CAPTURE]
    book.wanted("u", False, None, 10.4)
    assert book.report() == {}
    book.wanted("u", True, None, 10.5)  # before the ztunnel was told
    assert book.kernel_steps(10.2 + NOTICE_S) == []
    book.reported({"u"}, 10.6)
    assert book.kernel_steps(11.0) == [CAPTURE]
    book.failed("u", "kernel", 11.0)
    assert book.report() == {}, "it is not captured, and peers are told so"
    assert book.kernel_steps(11.0 + RETRY_S) == [CAPTURE]


def test_a_pod_starts_as_long_as_anybody_waits_for_it() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, True)
    for callers, is_starting in ((1, True), (1, True), (-1, True), (-1, False), (-1, False)):
        book.starts("u", callers)
        assert book.pods()["u"].starting is is_starting
    book.starts("u", 1)
    assert book.pods()["u"].starting


def test_a_start_that_is_given_up_is_a_pod_that_runs() -> None:
    book = Book(2.0)
    book.registered("u", 100, ADDRESSES, True)
    book.ztunnel_joined(7)
    book.starts("u", 1)
    book.added(AddToZtunnel("u", 7, 100), 10.0)
    assert book.report() == {}
    assert book.kernel_steps(10.0) == [CAPTURE]
    book.starts("u", -1)
    assert book.report() == {"u": ADDRESSES}
    assert book.kernel_steps(10.0) == []
    book.starts("nobody", 1)


def test_a_pod_that_leaves_is_listened_in_until_peers_know() -> None:
    leaving = replace(IN_FORCE, enrolled=False)
    drop = DeleteFromZtunnel("u", 7)
    assert plan.steps(leaving, ONE, 10.0) == (Release("u"), drop)
    released = replace(leaving, capture=None, released_s=10.0)
    told = ReportPod("u", captured=False)
    assert plan.steps(released, ONE, 500.0) == (told, AwaitDrain("u", None), drop)
    assert due_s(released, ONE, 500.0) is None
    withdrawn = replace(released, hbone=False, withdrawn_s=11.0)
    assert plan.steps(withdrawn, ONE, 12.9) == (AwaitDrain("u", 13.0), drop)
    assert plan.steps(withdrawn, ONE, 13.0) == (drop,)
    assert plan.steps(replace(released, netns=None), ONE, 10.0) == (drop, Forget("u"))


def test_a_pod_that_leaves_before_its_capture_is_listened_in_as_well() -> None:
    announced = replace(LISTENS, enrolled=False, hbone=True)
    drop = DeleteFromZtunnel("u", 7)
    assert plan.steps(announced, ONE, 10.0)[:2] == (
        ReportPod("u", captured=False),
        AwaitDrain("u", None),
    )
    withdrawn = replace(announced, hbone=False, withdrawn_s=11.0)
    assert plan.steps(withdrawn, ONE, 13.0) == (drop,)
    assert plan.steps(replace(announced, hbone=False), ONE, 10.0) == (drop,), "nobody was told"


def test_a_ztunnel_keeps_a_released_pod_for_what_it_has_open() -> None:
    one = NodeFacts((7,), 2.0, linger_s=30.0)
    left = replace(IN_FORCE, enrolled=False, capture=None, released_s=10.0, hbone=False)
    end_s = 40.0
    drop = DeleteFromZtunnel("u", 7)
    assert plan.steps(left, one, 10.0) == (AwaitDrain("u", end_s), drop)
    assert due_s(left, one, 10.0) == end_s
    assert plan.state(left, one) == (PodState.NOT_ENROLLED, "lingering")
    assert plan.steps(left, one, end_s) == (drop,)
    dropped = replace(left, handovers=())
    assert plan.steps(dropped, one, 10.0) == ()
    assert plan.state(dropped, one) == (PodState.NOT_ENROLLED, "")
    assert plan.state(left, NodeFacts((), 2.0)) == (PodState.NOT_ENROLLED, "")
    # After a restart, before the control plane is heard.
    unknown = replace(left, enrolled=None)
    assert plan.steps(unknown, one, 10.0) == (AwaitDrain("u", end_s), drop)
    assert plan.steps(unknown, one, end_s) == (drop,)
    # A namespace that goes is let go, and so is one from before.
    assert plan.steps(replace(left, netns=None), one, 10.0) == (drop, Forget("u"))
    assert plan.steps(replace(left, netns=200), one, 10.0) == (drop,)


def test_a_pod_that_comes_back_while_it_lingers_is_announced_and_captured() -> None:
    back = replace(IN_FORCE, capture=None, released_s=10.0, offered_s=11.0, hbone=False)
    report = ReportPod("u", captured=True)
    until_s = 11.0 + UNHEARD_S_MAX
    assert plan.steps(back, ONE, 11.0) == (report, AwaitPeers("u", until_s), CAPTURE, report)


def test_a_deleted_pod_is_released_at_once() -> None:
    assert plan.steps(replace(IN_FORCE, netns=None), ONE, 0) == (
        Release("u"),
        DeleteFromZtunnel("u", 7),
        Forget("u"),
    )


def test_the_same_uid_in_another_namespace_is_replaced() -> None:
    replaced = replace(IN_FORCE, netns=200, waits=1)
    assert plan.steps(replaced, ONE, 0)[:3] == (
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
    assert plan.steps(replace(STARTS, direct=True), ONE, 0)[:2] == (
        AddToZtunnel("u", 7, 100),
        CapturePod("u", 7, 100, ADDRESSES, direct=True),
    )
    assert plan.steps(DIRECT, ONE, 0) == ()


def test_the_switch_needs_no_ztunnel() -> None:
    nobody = NodeFacts((), 2.0)
    assert plan.steps(replace(DIRECT, direct=False), nobody, 0) == (SetDirect("u", False),)
    assert plan.steps(replace(IN_FORCE, direct=True), nobody, 0) == (SetDirect("u", True),)


def test_a_pod_whose_past_the_host_knows_waits_for_the_direct_path() -> None:
    held = replace(IN_FORCE, direct=True, held_until_s=130.0)
    assert plan.steps(held, ONE, 129.9) == ()
    assert due_s(held, ONE, 129.9) == 130.0
    assert plan.steps(held, ONE, 130.0) == (SetDirect("u", True),)
    assert due_s(held, ONE, 130.0) is None
    assert due_s(replace(held, direct=False), ONE, 129.9) is None
    assert due_s(replace(held, capture=None), ONE, 129.9) is None
    again = replace(DIRECT, held_until_s=130.0)  # captured so by a run that knew nothing of it
    assert plan.steps(again, ONE, 129.9) == (SetDirect("u", False),)


def test_who_leaves_the_mesh_leaves_the_direct_path_first() -> None:
    leaving = plan.steps(replace(DIRECT, enrolled=False), ONE, 0)
    assert leaving[:2] == (SetDirect("u", False), Release("u"))
    gone = plan.steps(replace(DIRECT, netns=None), ONE, 0)
    assert gone[0] == Release("u")  # which ends both in one step


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
    assert list(book.ready(100.0)) == [Release("u")]
    book.released("u", 100.0)
    assert list(book.ready(200.0)) == [ReportPod("u", captured=False)]
    book.reported(frozenset(), 200.0)
    assert list(book.ready(201.9)) == [AwaitDrain("u", 202.0)]
    assert list(book.ready(202.0)) == [DeleteFromZtunnel("u", 7)]


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
        (replace(IN_FORCE, enrolled=False), ONE, (PodState.RELEASING, "releasing")),
        (replace(IN_FORCE, enrolled=False, failure="os"), ONE, (PodState.RELEASING, "os")),
        (replace(IN_FORCE, netns=None), ONE, (PodState.RELEASING, "namespace_gone")),
        (replace(IN_FORCE, netns=5), ONE, (PodState.RELEASING, "namespace_replaced")),
    ],
)
def test_states(pod: PodFacts, node: NodeFacts, expected: tuple[PodState, str]) -> None:
    assert plan.state(pod, node) == expected


# A world in which steps are taken one by one, in any order, and anything may happen in between.
