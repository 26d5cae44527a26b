"""`tulle policies`: the authorization policies in force at the tunnels."""

from __future__ import annotations

import click

from agent.cli import views
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, show

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POLICY", "name"),
    Column("ACTION", "action"),
    Column("SCOPE", "scope"),
    Column("RULES", "rules", wide=True),
)


@click.command()
@read_options()
def policies(ask: Reading) -> None:
    """List the policies in force.

    Example: tulle policies -A
    """
    show(
        ask.out,
        lambda: views.policies(ask.read("ztunnel", "control"), ask.wanted),
        COLUMNS,
        "no policies",
    )
