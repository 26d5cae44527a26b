"""Rows to text."""

from __future__ import annotations

import json
from collections import Counter

import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.render import Column, Output, cell, render

COLUMNS = (Column("NAME", "name"), Column("ADDRESS", "addresses"), Column("UID", "uid", wide=True))
ROWS = [
    {"namespace": "shop", "name": "a", "addresses": ["10.0.0.1", "fd00::1"], "uid": "u"},
    {"namespace": "shop", "name": "longer", "addresses": [], "uid": None},
]


def test_tables_line_up_and_end_without_spaces() -> None:
    assert render(ROWS, COLUMNS, Output()) == (
        "NAME     ADDRESS\na        10.0.0.1,fd00::1\nlonger   -\n"
    )
    assert render(ROWS, COLUMNS, Output("wide", headers=False)) == (
        "a        10.0.0.1,fd00::1   u\nlonger   -                  -\n"
    )
    assert render([], COLUMNS, Output("table", headers=False)) == ""


def test_json_yaml_and_names_carry_everything() -> None:
    assert json.loads(render(ROWS, COLUMNS, Output("json"))) == ROWS
    assert yaml.safe_load(render(ROWS, COLUMNS, Output("yaml"))) == ROWS
    assert render(ROWS, COLUMNS, Output("name")) == "shop/a\nshop/longer\n"


def test_a_cell_never_moves_the_cursor() -> None:
    assert cell("a\x1b[2Jb\nc\x9b") == "a?[2Jb?c?"
    assert (cell(True), cell(0), cell(None)) == ("yes", "0", "-")


def test_words_of_the_last_column_are_wrapped_to_a_terminal() -> None:
    rows = [{"name": "a", "addresses": "4 of 4 captured; direct path on"}]
    columns = (Column("NAME", "name"), Column("DETAIL", "addresses"))
    assert render(rows, columns, Output(width=30)) == (
        "NAME   DETAIL\na      4 of 4 captured; direct\n       path on\n"
    )
    whole = "NAME   DETAIL\na      4 of 4 captured; direct path on\n"
    for out in (Output(), Output(width=38), Output(width=10), Output("wide", width=30)):
        assert render(rows, columns, out) == whole


def test_the_widest_columns_give_way_in_a_narrow_terminal() -> None:
    columns = (*COLUMNS[:2], Column("IDENTITY", "identity"), Column("NODE", "node"))
    rows = [{**ROWS[0], "identity": "spiffe://cluster.local/ns/shop/sa/a", "node": "n1"}]
    assert render(rows, columns, Output(width=50)) == (
        "NAME   ADDRESS            IDENTITY            NODE\n"
        "a      10.0.0.1,fd00::1   spiffe://           n1\n"
        "                          cluster.local/ns/\n"
        "                          shop/sa/a\n"
    )
    assert render(rows, columns, Output(width=43)) == (
        "NAME   ADDRESS        IDENTITY         NODE\n"
        "a      10.0.0.1,      spiffe://        n1\n"
        "       fd00::1        cluster.local/\n"
        "                      ns/shop/sa/a\n"
    )


@given(
    st.lists(st.lists(st.text("ab ,/", max_size=30), min_size=3, max_size=3)), st.integers(0, 90)
)
def test_nothing_is_lost_and_what_can_fit_does(cells: list[list[str]], width: int) -> None:
    columns = tuple(Column(each, each) for each in "XYZ")
    rows = [dict(zip("XYZ", each, strict=True)) for each in cells]
    whole, fitted = (render(rows, columns, Output(width=each)) for each in (0, width))
    assert Counter("".join(fitted.split())) == Counter("".join(whole.split()))
    assert fitted == whole or max(map(len, fitted.splitlines())) <= width
