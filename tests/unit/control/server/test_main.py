"""The table of commands."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from control.server.main import COMMANDS, main


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_help_names_every_flag_and_its_variable() -> None:
    code, out, _ = run("--help")
    assert code == 0
    for flag in ("--manifests", "--state", "--listen", "--dns-name", "--cert-ttl-max", "--admin"):
        assert flag in out
        assert "TULLE_CONTROL_" + flag[2:].replace("-", "_").upper() in out
    assert "Examples:" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert COMMANDS[name][2] in " ".join((command.help or "").split())


def test_a_token_needs_no_server() -> None:
    code = (
        "import sys; from control.server.main import main\n"
        "main.main(['token', '--help'], standalone_mode=False)\n"
        "own = ('control.server.plane', 'control.server.assembly')\n"
        "print([m for m in sys.modules if m.startswith(('grpc', 'yaml', *own))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
