"""`tulle policies`: those in force at the ztunnels."""

from __future__ import annotations

import click

from agent.cli import health
from agent.cli.made_policies import PEER_AUTHENTICATION
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, cell
from agent.cli.views.objects import policy_rows
from agent.cli.views.pages import Row

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POLICY", "name"),
    Column("KIND", "kind"),
    Column("ACTION", "action"),
    Column("SCOPE", "scope"),
    Column("RULES", "rules", wide=True),
)

POLICY_KINDS = ("AuthorizationPolicy", PEER_AUTHENTICATION)


@click.command()
@read_options()
def policies(ask: Reading) -> None:
    """List the policies in force.

    Warns on standard error about invalid ones, and notes what is not enforced as it is written: a
    rule that needs layer 7 is dropped, and without a rule an ALLOW policy denies everything. Warns
    of nodes that have not got a policy yet, and of pods that name one which has not come: these
    refuse every connection.

    Example: tulle policies -A
    """

    def rows() -> list[Row]:
        found = ask.read("ztunnel", "control")
        for one in health.problems(found):
            if str(one.get("object")).startswith(POLICY_KINDS):
                click.echo(f"warning: {cell(health.problem_text(one))}", err=True)
        for one in health.notes(found, ask.wanted.namespace):
            if str(one.get("object")).startswith(POLICY_KINDS):
                click.echo(f"note: {cell(health.problem_text(one))}", err=True)
        late = health.late_policies(found, ask.wanted.namespace)
        for told in [*late, *health.missing_policies(found, ask.wanted.namespace)]:
            click.echo(f"warning: {cell(told)}", err=True)
        return policy_rows(found, ask.wanted)

    ask.show(rows, COLUMNS, "no policies")
