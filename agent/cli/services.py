"""`tulle services`: services, their virtual addresses and counts of healthy endpoints."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.objects import service_rows

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("SERVICE", "name"),
    Column("ADDRESS", "addresses"),
    Column("PORTS", "ports"),
    Column("ENDPOINTS", "endpoints"),
    Column("HOSTNAME", "hostname", wide=True),
)


@click.command()
@read_options()
def services(ask: Reading) -> None:
    """List services; ENDPOINTS is healthy/all.

    Example: tulle services -n shop
    """
    ask.show(
        lambda: service_rows(ask.read("ztunnel", fallback=("control",)), ask.wanted),
        COLUMNS,
        "no services",
    )
