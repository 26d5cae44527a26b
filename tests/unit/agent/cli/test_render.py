"""Rows to text."""

from __future__ import annotations

import json

import yaml

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
