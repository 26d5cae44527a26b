"""Flags that take a duration: parsed, bounded, explained."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from control.kit.flags import Duration


def given(text: str) -> tuple[int, str]:
    """Exit code and output of a command with one duration."""

    @click.command()
    @click.option("--wait", type=Duration(0.5, 3600), default=2)
    def command(wait: float) -> None:
        click.echo(f"{wait:g}")

    result = CliRunner().invoke(command, ["--wait", text] if text else [])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("text", "said"), [("", "2"), ("7", "7"), ("500ms", "0.5"), ("1h", "3600")]
)
def test_a_duration_arrives_in_seconds(text: str, said: str) -> None:
    assert given(text) == (0, f"{said}\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [("soon", "is not a duration"), ("100ms", "at least 0.5s"), ("2h", "at most 3600s")],
)
def test_others_are_refused_and_explained(text: str, why: str) -> None:
    code, output = given(text)
    assert code == 2
    assert why in output
