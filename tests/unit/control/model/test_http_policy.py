"""Matches of layer 7 that are empty, and those that layer 4 could decide."""

from __future__ import annotations

from control.model.http_policy import HttpMatch, ValueMatch
from control.model.policy import Match, StringMatch, StringMatchKind

A = (StringMatch(StringMatchKind.EXACT, "a"),)


def test_a_match_without_any_field_is_empty() -> None:
    assert HttpMatch().is_empty
    assert HttpMatch().is_l4
    assert not HttpMatch(not_paths=A).is_empty


def test_layer_4_could_decide_by_its_own_fields_alone() -> None:
    assert HttpMatch(l4=Match(principals=A)).is_l4
    assert not HttpMatch(l4=Match(principals=A), methods=A).is_l4
    assert not HttpMatch(headers=(ValueMatch(("a",)),)).is_l4
