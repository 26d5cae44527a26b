"""Commands are imported when they are used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import click
import pytest
from click.testing import CliRunner

from control.kit.lazy_group import LazyGroup

SOURCE = """
import click

@click.command()
def {name}():
    click.echo("{name} ran")
"""


class Program(LazyGroup):
    verbs: ClassVar = {
        "one": ("verbs_one", "one", "The first."),
        "two": ("verbs_two", "two", "The second."),
    }


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> click.Command:
    for name in Program.verbs:
        (tmp_path / f"verbs_{name}.py").write_text(SOURCE.format(name=name))
        monkeypatch.delitem(sys.modules, f"verbs_{name}", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return Program("program")


def test_the_page_loads_none(program: click.Command) -> None:
    page = CliRunner().invoke(program, ["--help"]).output
    assert "one  The first." in page
    assert "two  The second." in page
    assert not {"verbs_one", "verbs_two"} & sys.modules.keys()


def test_the_one_in_use_alone_is_loaded(program: click.Command) -> None:
    assert CliRunner().invoke(program, ["one"]).output == "one ran\n"
    assert "verbs_one" in sys.modules
    assert "verbs_two" not in sys.modules


def test_a_command_that_is_none_is_a_usage_error(program: click.Command) -> None:
    result = CliRunner().invoke(program, ["tow"])
    assert result.exit_code == 2
    assert "Did you mean 'two'?" in result.output
