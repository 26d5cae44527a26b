"""One document, one object: or the reason, and what stands in for it. More in test_folder.py."""

from __future__ import annotations

from dataclasses import replace

from control.server.sources.entries import choose, place_word, read_entry
from control.server.sources.objects import AuthorizationPolicy
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import Fields, read_documents
from tests.support.manifests import pod, policy


def entry(text: str) -> object:
    (document,) = [each.value for each in read_documents(text.encode()) if each.value]
    assert isinstance(document, Fields)
    return read_entry("a.yaml", Reader(document), 0)


def test_the_last_good_version_wins_over_a_stand_in_and_both_over_nothing() -> None:
    broken = read_entry_of(policy("{rules: 3}"))
    assert broken.object is None
    good = read_entry_of(policy("{}")).object
    assert good is not None
    kept, problem = choose(broken, good)
    assert kept is good
    assert problem is not None
    assert "last good" in problem.message
    stand_in, problem = choose(broken, None)
    assert isinstance(stand_in, AuthorizationPolicy)
    assert stand_in.broken
    assert problem is not None
    assert "denied" in problem.message
    nothing, problem = choose(replace(broken, stand_in=None), None)
    assert nothing is None
    assert problem is not None
    assert "ignored" in problem.message


def read_entry_of(text: str):  # type: ignore[no-untyped-def]  # test shorthand
    found = entry(text)
    assert found is not None
    return found


def test_a_kind_that_means_nothing_is_no_entry() -> None:
    assert entry("{apiVersion: v1, kind: Secret, metadata: {name: a}}") is None
    assert read_entry_of(pod()).why is None


def test_no_two_places_have_one_word() -> None:
    assert len({place_word(file, at) for file in ("a", "b", "1 a") for at in range(3)}) == 9
