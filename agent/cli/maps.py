"""`tulle maps`: fill level and drops of each table and ring of the kernel half."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.maps import map_rows

COLUMNS = (
    Column("NAME", "name"),
    Column("USED", "used"),
    Column("MAX", "max"),
    Column("%", "percent"),
    Column("DROPS", "drops"),
    Column("NODE", "node"),
)


@click.command()
@read_options(namespaced=False)
def maps(ask: Reading) -> None:
    """Show entries of every kernel table, bytes of every ring, their limits, and drops.

    A full table never means "allow": its connections go through the tunnel or are refused.
    `tulle check` warns at four fifths, of a table that forgets its oldest entries when it is full.

    Example: tulle maps --node a
    """
    ask.show(lambda: map_rows(ask.read("agent")), COLUMNS, "no agent answers")
