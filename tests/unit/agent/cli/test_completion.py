"""`tulle completion`: a script for each shell, which asks us for the rest."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from agent.cli.main import tulle
from tests.unit.agent.cli.verbs import run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_TULLE_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tulle st", ["status"]),
        ("tulle log ", ["level", "reset"]),
        ("tulle maps --no", ["--no-headers", "--node"]),
    ],
)
def test_a_shell_that_asks_is_told_verbs_and_options(typed: str, expected: list[str]) -> None:
    words = typed.split(" ")
    asked = {
        "_TULLE_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    result = CliRunner().invoke(tulle, [], prog_name="tulle", env=asked)
    assert [line.partition(",")[2] for line in result.stdout.splitlines()] == expected


def test_another_shell_is_a_usage_error() -> None:
    assert run("completion", "csh").exit_code == 2
