"""The flags of `tulle-agent`: their variables, their order, and a page that fits 80 columns."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from agent.flags import agent_flags
from agent.main import main
from control.server.main import main as control
from ztunnel.main import main as ztunnel


@click.command()
@agent_flags
def command(**flags: object) -> None:
    click.echo(flags["node"])


def test_the_more_special_variable_wins() -> None:
    env = {"NODE_NAME": "c", "TULLE_NODE": "b"}
    assert CliRunner(env=env).invoke(command).output == "b\n"
    env["TULLE_AGENT_NODE"] = "a"
    assert CliRunner(env=env).invoke(command).output == "a\n"
    assert CliRunner(env=env).invoke(command, ["--node", "d"]).output == "d\n"


def test_the_page_names_the_node_first() -> None:
    options = [
        line for line in CliRunner().invoke(main, ["-h"]).output.splitlines() if "--" in line
    ]
    names = [line.split()[0] for line in options if line.startswith("  --")]
    assert names[:3] == ["--version", "--node", "--control"]
    assert names[-1] == "--uninstall"


@pytest.mark.parametrize("program", [main, control, ztunnel])
def test_help_fits_a_terminal(program: click.Command) -> None:
    page = CliRunner().invoke(program, ["--help"], terminal_width=80).output
    assert [line for line in page.splitlines() if len(line) > 80] == []
