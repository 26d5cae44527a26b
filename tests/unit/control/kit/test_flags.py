"""Flags that take a duration or a port: parsed, bounded, explained."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from control.kit.flags import Duration, ListenAddress


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


def page(text: str) -> tuple[int, str]:
    """Exit code and output of a command with one page that may be off."""

    @click.command()
    @click.option("--page", type=ListenAddress("off"), default="[::]:80")
    def command(page: str) -> None:
        click.echo(page)

    result = CliRunner().invoke(command, ["--page", text] if text else [])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("text", "said"), [("", "[::]:80"), ("127.0.0.1:0", "127.0.0.1:0"), ("off", "off")]
)
def test_a_page_is_somewhere_or_off(text: str, said: str) -> None:
    assert page(text) == (0, f"{said}\n")


@pytest.mark.parametrize("text", ["of", "127.0.0.1", "127.0.0.1:99999"])
def test_elsewhere_is_refused_with_the_flags_name(text: str) -> None:
    code, output = page(text)
    assert code == 2
    assert "--page" in output
    assert f"must be ADDRESS:PORT, not '{text}'" in " ".join(output.split())
