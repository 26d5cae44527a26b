"""When the node takes what it has for the truth: at the control plane's word, or in its time."""

from __future__ import annotations

import random

import pytest

from control.wire.delta import Word
from ztunnel.mesh.entries import Op
from ztunnel.supervisor.settling import APART_S, SILENT_S, Settling

A, B = "addresses", "policies"


class Stream:
    """A stream on which both types have had their first response."""

    def __init__(self) -> None:
        self.settling = Settling((A, B))
        self.open()
        for each in (A, B):
            assert self.take(each, Word.NONE, settled=True) is None

    def open(self, now_s: float = 0.0) -> None:
        self.settling.opened(now_s)

    def take(
        self, type_url: str, word: Word, now_s: float = 0.0, *, settled: bool = False
    ) -> Op | None:
        number = self.settling.number()
        return self.settling.applied(number, type_url, word, now_s, settled=settled)


def test_the_control_plane_says_when() -> None:
    stream = Stream()
    assert stream.take(B, Word.MORE) is None
    assert stream.settling.due_s() is None, "no time decides against its word"
    assert stream.take(A, Word.WHOLE) is Op.SNAPSHOT


def test_a_response_that_overtook_another_says_nothing_before_that_one_is_applied() -> None:
    stream = Stream()
    first, second = stream.settling.number(), stream.settling.number()
    assert stream.settling.applied(second, B, Word.WHOLE, 0.0, settled=False) is None
    assert stream.settling.applied(first, A, Word.MORE, 0.0, settled=False) is Op.SNAPSHOT


def test_one_that_says_nothing_is_believed_after_a_time() -> None:
    stream = Stream()
    assert stream.take(B, Word.NONE, 10.0) is None
    assert stream.settling.due_s() == 10.0 + APART_S
    assert stream.settling.elapsed(10.0 + APART_S / 2) is None
    assert stream.settling.elapsed(10.0 + APART_S) is Op.SNAPSHOT
    assert stream.settling.due_s() is None


def test_nothing_changed_nothing_is_to_do() -> None:
    stream = Stream()
    assert stream.take(A, Word.NONE, settled=True) is None
    assert stream.take(A, Word.WHOLE, settled=True) is None
    assert stream.settling.due_s() is None


def test_while_the_stream_is_away_and_until_both_types_have_answered_nothing_settles() -> None:
    stream = Stream()
    stream.take(B, Word.NONE, 10.0)
    stream.open(1000.0)
    assert stream.settling.elapsed(1000.0 + SILENT_S - 1) is None
    stream.take(B, Word.NONE, 1000.0)
    assert stream.settling.elapsed(1000.0 + SILENT_S - 1) is None
    stream.take(A, Word.NONE, 1100.0)
    assert stream.settling.elapsed(1100.0 + APART_S) is not None


def test_a_type_that_stays_silent_on_a_new_stream_has_no_news() -> None:
    stream = Stream()
    stream.take(B, Word.NONE, 10.0)
    stream.open(100.0)
    assert stream.settling.due_s() == 100.0 + SILENT_S
    now_s = 100.0 + SILENT_S
    assert stream.settling.elapsed(now_s) is None
    while (op := stream.settling.elapsed(now_s)) is not Op.SNAPSHOT:
        assert op in (None, Op.LATER)
        due_s = stream.settling.due_s()
        assert due_s is not None
        now_s = max(now_s, due_s)
    assert now_s >= 100.0 + SILENT_S + APART_S


def test_a_control_plane_that_says_when_is_waited_for() -> None:
    stream = Stream()
    stream.take(B, Word.MORE)
    stream.open(100.0)
    assert stream.settling.due_s() is None


def test_a_whole_state_on_a_new_stream_waits_for_both_types() -> None:
    stream = Stream()
    stream.take(B, Word.MORE)
    stream.open()
    assert stream.take(B, Word.WHOLE) is None
    assert stream.take(A, Word.WHOLE) is Op.SNAPSHOT


@pytest.mark.parametrize("every_s", [0.1, 0.9, 3.0, 4.9])
def test_changes_without_a_pause_keep_nothing_for_more_than_twice_the_time(every_s: float) -> None:
    """And never for less than it: `held` are the times of changes that the past still covers."""
    rng = random.Random(every_s)
    stream = Stream()
    older: list[float] = []
    newer: list[float] = []
    now_s = 0.0
    for _ in range(300):
        now_s += rng.uniform(0.5, 1.0) * every_s
        while (due_s := stream.settling.due_s()) is not None and due_s <= now_s:
            gone = older if stream.settling.elapsed(due_s) is Op.LATER else [*older, *newer]
            assert all(due_s - each >= APART_S - 1e-6 for each in gone)
            older, newer = ([], []) if len(gone) > len(older) else (newer, [])
        newer.append(now_s)
        stream.take(rng.choice((A, B)), Word.NONE, now_s)
        assert all(now_s - each <= 2 * APART_S + every_s for each in (*older, *newer))
