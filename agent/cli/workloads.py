"""`tulle workloads`: every workload that the ztunnels know."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.objects import workload_rows

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POD", "name"),
    Column("NODE", "node"),
    Column("ADDRESS", "addresses"),
    Column("IDENTITY", "identity"),
    Column("PROTOCOL", "protocol"),
    Column("CAPTURED-SINCE", "captured_since"),
    Column("STATUS", "status", wide=True),
    Column("SERVICES", "services", wide=True),
    Column("UID", "uid", wide=True),
)


@click.command()
@read_options(labelled=True)
def workloads(ask: Reading) -> None:
    """List the workloads that the ztunnels know, with their SPIFFE identities.

    Example: tulle workloads -n shop -o wide
    """
    ask.show(
        lambda: workload_rows(ask.read("ztunnel", "agent", fallback=("control",)), ask.wanted),
        COLUMNS,
        "no workloads",
    )
