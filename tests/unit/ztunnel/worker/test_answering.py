"""Answers are made a share each turn, in the order of the questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine.rows import joined
from ztunnel.loop.reactor import Reactor
from ztunnel.worker.answering import QUESTIONS_MAX, TURN_S, Answering


class Desk:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.sent: list[dict[str, Any]] = []
        self.bugs: list[object] = []
        self.reactor = Reactor(self.bugs.append)
        self.answering = Answering(self.reactor, self.sent.append, lambda: self.now_s)

    def pieces(self, count: int, cost_s: float = 0.0) -> Iterator[dict[str, Any]]:
        for number in range(count):
            self.now_s += cost_s
            yield {"rows": [number]}


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.reactor.close()


def test_a_short_answer_is_one_frame(desk: Desk) -> None:
    desk.answering.begin(3, desk.pieces(100))
    assert desk.sent == [{"id": 3, "more": False, "rows": list(range(100))}]


def test_a_long_one_takes_its_share_of_each_turn(desk: Desk) -> None:
    desk.answering.begin(1, desk.pieces(10, TURN_S / 2))
    desk.answering.begin(2, desk.pieces(1))
    for _ in range(10):
        desk.reactor.turn(0)
    first = [each for each in desk.sent if each["id"] == 1]
    assert all(len(each.get("rows", ())) <= 2 for each in first)
    assert joined(first) == {"id": 1, "more": False, "rows": list(range(10))}
    assert desk.sent[-1] == {"id": 2, "more": False, "rows": [0]}


def test_questions_beyond_the_bound_get_an_empty_answer(desk: Desk) -> None:
    for number in range(QUESTIONS_MAX + 1):
        desk.answering.begin(number, desk.pieces(2, TURN_S))
    assert [each["id"] for each in desk.sent if "error" in each] == [QUESTIONS_MAX]


def test_a_question_that_raises_does_not_keep_the_others(desk: Desk) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        desk.now_s += TURN_S
        yield {}
        raise ValueError("a bug")

    desk.answering.begin(1, broken())
    desk.answering.begin(2, desk.pieces(1))
    for _ in range(5):
        desk.reactor.turn(0)
    assert len(desk.bugs) == 1
    assert [(each["id"], "error" in each) for each in desk.sent][-2:] == [(1, True), (2, False)]
