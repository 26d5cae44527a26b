"""Endpoints that did not answer: for how long others are preferred."""

from __future__ import annotations

from itertools import pairwise

from ztunnel.connections.doubts import DOUBTS_MAX, PAUSE_S, PAUSE_S_MAX, Doubts


def test_one_that_answers_is_never_avoided() -> None:
    subject = Doubts()
    assert not subject.avoids("a", 0.0)
    subject.raised("a", 0.0)
    assert subject.avoids("a", 1.0)
    assert not subject.avoids("b", 1.0)
    subject.settled("a")
    assert not subject.avoids("a", 1.0)
    subject.settled("a")


def test_one_connection_tries_after_each_pause_and_pauses_grow() -> None:
    subject = Doubts()
    subject.raised("a", 0.0)
    tried = [tenth / 10 for tenth in range(2000) if not subject.avoids("a", tenth / 10)]
    assert tried[:4] == [PAUSE_S, PAUSE_S * 3, PAUSE_S * 7, PAUSE_S * 7 + PAUSE_S_MAX]
    steps = {after - before for before, after in pairwise(tried[3:])}
    assert steps == {PAUSE_S_MAX}


def test_many_that_find_it_out_at_once_are_one_doubt() -> None:
    subject = Doubts()
    for _ in range(100):
        subject.raised("a", 0.0)
    assert not subject.avoids("a", PAUSE_S)
    subject.raised("a", PAUSE_S + 1)  # the one that tried
    assert not subject.avoids("a", PAUSE_S * 3)


def test_the_oldest_is_forgotten() -> None:
    subject = Doubts()
    for number in range(DOUBTS_MAX + 1):
        subject.raised(str(number), 0.0)
    assert len(subject.held) == DOUBTS_MAX
    assert not subject.avoids("0", 1.0)
    assert subject.avoids(str(DOUBTS_MAX), 1.0)
