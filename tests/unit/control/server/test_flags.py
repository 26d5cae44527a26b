"""Flags are variables too, and output that is lost is no success."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from control.kit.terminal import Terminal
from control.server import flags
from control.server.flags import DEFAULT_STATE, STATE, option, output


@click.command()
@STATE
@option("--two-words", default="none")
def verb(state: Path, two_words: str) -> None:
    with output():
        click.echo(f"{state} {two_words}")


def run(**env: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(verb, env=env)
    return result.exit_code, result.stdout, result.stderr


def test_a_flag_is_also_a_variable() -> None:
    assert run() == (0, f"{DEFAULT_STATE} none\n", "")
    assert run(TULLE_CONTROL_STATE="/s", TULLE_CONTROL_TWO_WORDS="x") == (0, "/s x\n", "")


def test_output_that_nobody_takes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Terminal):
        def failure(self) -> str:
            return "no space left"

    monkeypatch.setattr(flags, "Terminal", Full)
    code, _, err = run()
    assert (code, "no space left" in err) == (2, True)
