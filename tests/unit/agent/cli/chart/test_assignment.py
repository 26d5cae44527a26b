from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.chart.assignment import assign, assignments, name_of
from control.kit.errors import ConfigError


def made(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in words:
        for path, value in assignments(text):
            assign(found, path, value)
    return found


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("a=1", {"a": 1}),
        ("a.b=x,a.c=true", {"a": {"b": "x", "c": True}}),
        ("a={x,2}", {"a": ["x", 2]}),
        ("a={}", {"a": []}),
        ("a[0].b=x,a[1].b=y", {"a": [{"b": "x"}, {"b": "y"}]}),
        ("a=null", {"a": None}),
        ("a=x=y", {"a": "x=y"}),
        ("a=", {"a": ""}),
        (r"a\.b/c=1", {"a.b/c": 1}),
        (r"a=x\,y", {"a": "x,y"}),
        ("a=007", {"a": "007"}),
        ("a=1.5", {"a": "1.5"}),
    ],
)
def test_as_helm_reads_it(words: str, value: dict[str, Any]) -> None:
    assert made(words) == value


@pytest.mark.parametrize(
    "words", ["a", "=1", "a..b=1", "a[=1", "a[2]=1", "a=1,a.b=2", "a[9999]=1", "a.=1"]
)
def test_what_is_no_assignment_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        made(words)


def test_a_place_by_its_name() -> None:
    assert name_of(("a", 0, "b")) == "a[0].b"


@given(st.text(alphabet="ab.[]0={},\\ ", max_size=30))
def test_any_words_give_values_or_a_refusal(words: str) -> None:
    try:
        made(words)
    except ConfigError:
        pass
