"""docs/bounds.md says the figures of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from control.server.callers import budget
from control.server.callers.budget import Bound, Pace
from control.server.callers.refusals import CallRefusal

PAGE = Path(__file__).parents[2] / "docs" / "bounds.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]
BY_NAME = {row[0].strip("`"): row for row in ROWS}


def test_every_share_and_pace_is_on_the_page_with_its_figures() -> None:
    for name, value in vars(budget).items():
        if isinstance(value, Bound):
            assert BY_NAME[name][1:3] == [str(value.each), str(value.total)]
        elif isinstance(value, Pace):
            assert [float(each) for each in BY_NAME[name][1:3]] == [value.per_s, value.burst]
        else:
            continue
        if value.why is not None:
            assert f"`{value.why.word}`" in BY_NAME[name][3]


@pytest.mark.parametrize("row", [row for row in ROWS if row[2].endswith(".py`")], ids=str)
def test_every_size_and_time_is_that_of_the_code(row: list[str]) -> None:
    name, figure, where = (cell.strip("`") for cell in row[:3])
    module = import_module("control.server." + where.removesuffix(".py").replace("/", "."))
    assert float(figure) == getattr(module, name)


def test_every_reason_on_the_page_exists() -> None:
    words = {word for row in ROWS for word in re.findall(r"`([a-z0-9_]+)`", row[3])}
    assert {each for each in words if "_" in each} <= {each.word for each in CallRefusal}
