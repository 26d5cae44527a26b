"""Decisions about a Lease: one holder at a time, whatever the clocks say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from control.server.leader.lease import (
    DURATION_S,
    DURATION_S_MAX,
    RENEW_S,
    LeaseCandidate,
    LeaseRecord,
    micro,
)
from tests.support.clock import FakeClock

NOW = FakeClock().now()
THEIRS = LeaseRecord("7", "b", DURATION_S, "2026-01-01T00:00:00.000000Z", "r1", 3)


def test_an_absent_lease_is_made() -> None:
    made = LeaseCandidate("a").next(None, 0.0, NOW)
    assert made == LeaseRecord("", "a", DURATION_S, micro(NOW), micro(NOW))


def test_anothers_lease_is_left_alone_until_it_was_still_for_its_duration() -> None:
    a = LeaseCandidate("a")
    assert a.next(THEIRS, 100.0, NOW) is None
    assert a.next(THEIRS, 114.9, NOW) is None
    assert a.next(replace(THEIRS, renewed="r2"), 115.0, NOW) is None, "it was renewed"
    assert a.next(replace(THEIRS, renewed="r2"), 129.9, NOW) is None
    taken = a.next(replace(THEIRS, renewed="r2"), 130.0, NOW)
    assert taken is not None
    assert (taken.holder, taken.version, taken.transitions) == ("a", "7", 4)


def test_a_clock_that_is_hours_ahead_takes_nothing_over() -> None:
    late = NOW + timedelta(hours=5)
    assert LeaseCandidate("a").next(replace(THEIRS, renewed=micro(NOW)), 0.0, late) is None


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    taken = LeaseCandidate("a").next(replace(THEIRS, holder=""), 0.0, NOW)
    assert taken is not None
    assert taken.holder == "a"


def test_a_holder_that_claims_a_lease_for_ever_is_not_believed() -> None:
    a, forever = LeaseCandidate("a"), replace(THEIRS, duration_s=10**9)
    assert a.next(forever, 0.0, NOW) is None
    assert a.next(forever, DURATION_S_MAX, NOW) is not None


def test_the_holder_renews_with_a_time_that_differs() -> None:
    a = LeaseCandidate("a")
    ours = replace(THEIRS, holder="a", renewed=micro(NOW))
    renewed = a.next(ours, 0.0, NOW)
    assert renewed is not None
    assert renewed.renewed == "2026-01-01T00:00:00.000001Z"
    assert (renewed.acquired, renewed.transitions) == (ours.acquired, ours.transitions)


def test_the_right_to_write_ends_before_another_may_take_over() -> None:
    a = LeaseCandidate("a")
    assert not a.holds(0.0)
    a.written(replace(THEIRS, holder="a"), 50.0)
    assert a.holds(50.0 + RENEW_S - 0.1)
    assert not a.holds(50.0 + RENEW_S)
    assert RENEW_S < DURATION_S
    a.written(replace(THEIRS, holder="a"), 60.0)
    a.lost()
    assert not a.holds(60.0)
    a.written(replace(THEIRS, holder="a"), 70.0)
    a.next(THEIRS, 71.0, NOW)
    assert not a.holds(71.0), "somebody else has it, however that came"


def test_a_success_with_another_holder_is_none() -> None:
    a = LeaseCandidate("a")
    a.written(THEIRS, 0.0)
    assert not a.holds(0.0)
    assert a.holder == "b"


def test_only_its_holder_gives_a_lease_back() -> None:
    a = LeaseCandidate("a")
    assert a.released(THEIRS) is None
    given_back = a.released(replace(THEIRS, holder="a"))
    assert given_back is not None
    assert given_back.holder == ""


def test_times_differ_even_when_the_clock_stands_still_or_goes_back() -> None:
    assert micro(NOW, micro(NOW)) != micro(NOW)
    back = NOW - timedelta(seconds=5)
    assert micro(back, micro(NOW)) != micro(NOW)
    assert micro(NOW, "nonsense") == micro(NOW)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.1, 20.0)), max_size=60))
def test_two_replicas_never_hold_it_at_once(steps: list[tuple[str, float]]) -> None:
    """Each step: one of them looks and writes, as the API server would take it."""
    both = {"a": LeaseCandidate("a"), "b": LeaseCandidate("b")}
    record: LeaseRecord | None = None
    now_s = 0.0
    for version, (who, pause_s) in enumerate(steps):
        now_s += pause_s
        wanted = both[who].next(record, now_s, NOW + timedelta(seconds=now_s))
        if wanted is not None:
            record = replace(wanted, version=str(version))
            both[who].written(record, now_s)
        assert sum(each.holds(now_s) for each in both.values()) <= 1
