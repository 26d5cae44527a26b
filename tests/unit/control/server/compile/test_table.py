"""A table tells what became of its resources since it was asked."""

from __future__ import annotations

from control.server.compile.table import ResourceTable


def test_it_tells_what_is_news_and_tells_it_once() -> None:
    subject: ResourceTable[str] = ResourceTable()
    subject.put("a", "one")
    subject.put("a", "one")
    subject.put("b", None)
    subject.put("c", "x")
    assert subject.take_changed() == {"a": "one", "c": "x"}
    assert subject.take_changed() == {}
    subject.put("a", "two")
    subject.put("c", None)
    assert subject.take_changed() == {"a": "two", "c": None}
    assert subject.current == {"a": "two"}


def test_what_came_and_went_is_not_told_at_all() -> None:
    subject: ResourceTable[str] = ResourceTable()
    subject.put("a", "one")
    subject.put("a", None)
    assert subject.take_changed() == {}
    subject.put("a", "one")
    subject.take_changed()
    subject.put("a", "two")
    subject.put("a", "one")
    assert subject.take_changed() == {}


def test_values_are_looked_up_when_they_are_asked_for() -> None:
    """A table of all workloads is not made in one go."""
    subject: ResourceTable[str] = ResourceTable()
    subject.put("a", "one")
    changed = subject.take_changed()
    assert (len(changed), list(changed), changed["a"], changed.get("b")) == (1, ["a"], "one", None)
    subject.put("a", "two")
    assert changed["a"] == "two"
