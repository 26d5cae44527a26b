"""`tulle certificates`: the identities that the ztunnels hold, and their expiry."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.certificates import certificate_rows

COLUMNS = (
    Column("IDENTITY", "name"),
    Column("NODE", "node"),
    Column("TYPE", "type"),
    Column("STATUS", "status"),
    Column("VALID", "valid"),
    Column("NOT-AFTER", "not_after"),
    Column("ENDS-IN", "ends_in"),
    Column("NOT-BEFORE", "not_before", wide=True),
    Column("SERIAL", "serial", wide=True),
)


@click.command()
@read_options()
def certificates(ask: Reading) -> None:
    """List leaf and root certificates; with -n, leaves only. Private keys are never shown.

    Example: tulle certificates -n shop -o wide
    """
    ask.show(
        lambda: certificate_rows(ask.read("ztunnel"), ask.wanted),
        COLUMNS,
        "no certificates (only enrolled pods have one)",
    )
