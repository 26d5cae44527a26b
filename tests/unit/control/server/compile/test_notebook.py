"""Notes are there while their cause is, in one order, and each is new once."""

from __future__ import annotations

from control.server.compile.notebook import Notebook
from control.server.sources.objects import Key
from control.server.sources.problem import Problem

A, B = Key("Pod", "shop", "a"), Key("Pod", "shop", "b")


def note(text: str) -> Problem:
    return Problem("a.yaml", 1, "Pod shop/a", "reason", text)


def test_the_order_is_that_of_topics_and_names() -> None:
    subject = Notebook()
    subject.put("remark", A, [note("last")])
    subject.put("probe", B, [note("second")])
    subject.put("probe", A, [note("first")])
    assert [each.message for each in subject.all()] == ["first", "second", "last"]
    subject.put("probe", B, [])
    assert [each.message for each in subject.all()] == ["first", "last"]


def test_each_is_new_once_and_again_after_it_was_gone() -> None:
    subject = Notebook()
    subject.put("probe", A, [note("x")])
    assert subject.take_new() == [note("x")]
    subject.put("probe", A, [note("x"), note("y")])
    assert subject.take_new() == [note("y")]
    subject.put("probe", A, [])
    subject.put("probe", A, [note("x")])
    assert subject.take_new() == [note("x")]
    subject.put("probe", B, [note("z")])
    subject.put("probe", B, [])
    assert subject.take_new() == []
