from __future__ import annotations

from typing import Any

import pytest

from agent.cli.chart.schema import part, problems

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[a-z]*$"},
        "kind": {"enum": ["a", "b"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "flag": {"type": "boolean"},
        "rows": {"type": "array", "items": {"type": "object"}},
        "free": {"type": "object"},
    },
}


def test_what_fits_has_no_problem() -> None:
    value = {"name": "x", "kind": "a", "count": 3, "flag": False, "rows": [{}], "free": {"x": [1]}}
    assert list(problems(value, SCHEMA)) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"name": "X"}, "name: 'X' is not of the form ^[a-z]*$"),
        ({"name": 1}, "name: 1 is no string"),
        ({"kind": "c"}, "kind: 'c' is not one of 'a', 'b'"),
        ({"count": 10}, "count: 10 is not from 0 to 9"),
        ({"count": True}, "count: True is no integer"),
        ({"rows": [{}, "x"]}, "rows[1]: 'x' is no object"),
        ({"nam": "x"}, "no setting nam; did you mean name?"),
        ([], "the settings: [] is no object"),
    ],
)
def test_each_problem_names_its_place(value: Any, said: str) -> None:
    assert list(problems(value, SCHEMA)) == [said]


def test_the_schema_of_a_place() -> None:
    assert part(SCHEMA, ("count",))["maximum"] == 9
    assert part(SCHEMA, ("rows", 0)) == {"type": "object"}
    assert part(SCHEMA, ("none", "x")) == {}
