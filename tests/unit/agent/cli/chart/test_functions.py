from __future__ import annotations

from typing import Any

import pytest

from agent.cli.chart import functions
from agent.cli.chart.functions import FUNCTIONS


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_empty_is_what_templates_take_for_it(value: Any) -> None:
    assert functions.is_empty(value)
    assert not functions.is_empty([value])


def test_merge_fills_what_is_empty_and_leaves_the_rest() -> None:
    own = {"a": 1, "b": "", "c": {"d": False, "e": [1]}}
    found = functions.merge(own, {"a": 2, "b": "x", "c": {"d": True, "e": [2], "f": 3}}, {"g": 4})
    assert found == {"a": 1, "b": "x", "c": {"d": True, "e": [1], "f": 3}, "g": 4}


def test_merge_does_not_share_with_its_source() -> None:
    source = {"a": {"b": 1}}
    found = functions.merge({}, source)
    found["a"]["b"] = 2
    assert source == {"a": {"b": 1}}


@pytest.mark.parametrize("value", [{"a": [1, {"b": "true"}]}, [], {}, "text", "a: b", 5, "x" * 300])
def test_yaml_there_and_back(value: Any) -> None:
    assert functions.from_yaml(functions.to_yaml(value)) == value


def test_nothing_in_yaml_is_an_empty_mapping() -> None:
    assert functions.from_yaml("") == {}


def test_and_or_give_a_value_not_a_truth() -> None:
    assert FUNCTIONS["and"](1, "", 2) == ""
    assert FUNCTIONS["and"](1, 2) == 2
    assert FUNCTIONS["or"]("", 0) == 0
    assert FUNCTIONS["or"]("", "a", "b") == "a"


def test_dig_gives_the_default_for_what_is_not_there() -> None:
    assert FUNCTIONS["dig"]("a", "b", "none", {"a": {"b": 1}}) == 1
    assert FUNCTIONS["dig"]("a", "c", "none", {"a": {"b": 1}}) == "none"
    assert FUNCTIONS["dig"]("a", "b", "none", {"a": 5}) == "none"


def test_values_are_printed_as_go_does() -> None:
    assert [functions.shown(each) for each in (None, True, 3, "x")] == ["", "true", "3", "x"]


def test_indented_lines() -> None:
    assert FUNCTIONS["nindent"](2, "a\nb") == "\n  a\n  b"
