"""The book of a large node: what an event costs does not grow with the pods it does not touch."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from agent.enrol import plan
from agent.enrol.book import RETRY_S, Book
from control.model.address import Address

PODS = 500
NOW = datetime.fromtimestamp(0, UTC)
# Planning all pods after every step took seconds for this many; now it is some 20 ms.
RESYNC_S_MAX = 0.5


def large() -> Book:
    book = Book(2.0)
    for number in range(PODS):
        address = Address(bytes([10, 0, *number.to_bytes(2, "big")]))
        book.registered(f"uid-{number}", 1000 + number, (address,), True)
        book.starts(f"uid-{number}", 1)
    return book


def resync(book: Book, ztunnel: int) -> int:
    """Serve a new ztunnel as fast as it answers; the number of pods it got."""
    book.ztunnel_joined(ztunnel)
    served = 0
    while isinstance(step := book.ztunnel_step(ztunnel, 0.0), plan.AddToZtunnel):
        book.adding(step)
        book.added(step)
        for each in book.kernel_steps(0.0):
            assert isinstance(each, plan.CapturePod)
            book.captured(each)
            served += 1
        assert book.next_deadline_s(0.0) is None
        book.observe(NOW)
        book.reporting(frozenset(book.report()))
        book.reported(frozenset(book.report()), 0.0)
    return served


def test_a_new_ztunnel_of_a_large_node_is_told_of_its_pods_in_linear_time() -> None:
    book = large()
    started_s = time.process_time()
    assert resync(book, 7) == PODS
    assert resync(book, 8) == PODS
    assert time.process_time() - started_s < 2 * RESYNC_S_MAX
    assert len(book.report()) == PODS


def test_pods_that_all_fail_are_all_asked_again() -> None:
    book = large()
    book.ztunnel_joined(7)
    for number in range(PODS):
        book.failed(f"uid-{number}", "ztunnel_refused", number / PODS)
    assert list(book.ready(1.0)) == []
    assert book.next_deadline_s(1.0) == RETRY_S
    assert len(list(book.ready(RETRY_S))) == 1
    assert len(list(book.ready(RETRY_S + 1))) == PODS
    assert book.next_deadline_s(RETRY_S + 1) is None


def test_a_namespace_has_the_one_who_lives_in_it() -> None:
    book = Book(2.0)
    book.registered("a", 100, (), None)
    assert book.living_in(100) == "a"
    book.registered("a", 200, (), None)
    assert (book.living_in(100), book.living_in(200)) == (None, "a")
    book.gone("a")
    assert book.living_in(200) is None
    book.registered("b", 200, (), None)
    book.forgotten("a")
    assert book.living_in(200) == "b"


def test_a_changed_state_is_shown_once() -> None:
    book = Book(2.0)
    book.registered("a", 100, (), False)
    assert book.observe(NOW) == [("a", plan.PodState.NOT_ENROLLED, "")]
    assert book.observe(NOW) == []
    book.wanted("a", True, None)
    book.wanted("a", False, None)
    assert book.observe(NOW) == []
    book.ztunnel_joined(7)
    book.gone("a")
    book.forgotten("a")
    assert book.observe(NOW) == []
