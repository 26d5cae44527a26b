"""`tulle policies`: the authorization policies in force at the ztunnels."""

from __future__ import annotations

import click

from agent.cli import health, views
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, cell, show

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POLICY", "name"),
    Column("ACTION", "action"),
    Column("SCOPE", "scope"),
    Column("RULES", "rules", wide=True),
)

POLICY_KINDS = ("AuthorizationPolicy", "PeerAuthentication")


@click.command()
@read_options()
def policies(ask: Reading) -> None:
    """List the policies in force; warn on standard error about invalid ones.

    Example: tulle policies -A
    """

    def rows() -> list[views.Row]:
        found = ask.read("ztunnel", "control")
        for one in health.problems(found):
            if str(one.get("object")).startswith(POLICY_KINDS):
                click.echo(f"warning: {cell(health.problem_text(one))}", err=True)
        return views.policies(found, ask.wanted)

    show(ask.out, rows, COLUMNS, "no policies")
