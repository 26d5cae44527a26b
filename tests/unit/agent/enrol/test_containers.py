"""Ids of deleted containers: the last ones, and nobody's id is none of them."""

from __future__ import annotations

from agent.enrol.containers import DeletedContainers


def test_the_last_ones_are_remembered() -> None:
    deleted = DeletedContainers(limit=2)
    for each in ("a", "b", "a", "c"):
        deleted.add(each)
    assert [each for each in "abc" if each in deleted] == ["a", "c"]


def test_one_that_runs_again_is_forgotten() -> None:
    deleted = DeletedContainers()
    deleted.add("a")
    deleted.discard("a")
    deleted.discard("never")
    assert "a" not in deleted


def test_an_empty_id_is_nobodys() -> None:
    deleted = DeletedContainers()
    deleted.add("")
    assert "" not in deleted
