"""Complaints about a command line: one style in all programs."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from agent.main import main as agent
from control.kit.command import PlainGroup
from control.server.main import main as control
from ztunnel.main import main as ztunnel


@click.group(cls=PlainGroup)
def program() -> None:
    """Stand in for one of ours."""


@program.command()
@click.option("--size", type=click.Choice(["small", "large"]), required=True)
def build(size: str) -> None:
    if size == "large":
        raise click.Abort


def ended(command: click.Command, *words: str) -> int:
    with pytest.raises(SystemExit) as end:
        command.main(list(words), prog_name="program")
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld"], "error: no such command 'biuld'. Did you mean 'build'?\ntry: program --help\n"),
        (
            ["build"],
            "error: missing option '--size'. Choose from: small, large\n"
            "try: program build --help\n",
        ),
        (
            ["build", "more"],
            "error: got unexpected extra argument (more)\ntry: program build --help\n",
        ),
        (
            ["build", "--size=3"],
            "error: invalid value for '--size': '3' is not one of 'small', 'large'\n"
            "try: program build --help\n",
        ),
    ],
)
def test_a_complaint_is_one_line_and_where_to_read_on(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(program, *words) == 2
    assert capsys.readouterr().err == said


def test_a_command_that_is_left_out_is_asked_for_with_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(program) in (0, 2)  # as click has it
    told = "".join(capsys.readouterr()).splitlines()
    assert told[0].lower().startswith("usage: program [options] command")
    assert len(told) > 5


def test_the_code_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(program, "build", "--size=small") == 0
    assert ended(program, "--help") == 0
    assert ended(program, "build", "--size=large") == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("command", [agent, control, ztunnel])
def test_every_program_complains_alike(
    command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(command, "--no-such-flag") == 2
    error, again = capsys.readouterr().err.splitlines()
    assert error.startswith("error: no such option '--no-such-flag'")
    assert again.startswith("try: program")


@pytest.mark.parametrize(
    "words",
    [
        ("control.server.main", "--help"),
        ("control.server.main", "token", "--help"),
        ("control.server.main", "--version"),
        ("agent.main", "--help"),
        ("ztunnel.main", "--help"),
    ],
)
def test_help_that_nothing_takes_is_one_line(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "error: standard output: No space left on device\n"
    assert done.returncode == 2
