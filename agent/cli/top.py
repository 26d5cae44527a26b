"""`tulle top`: who uses the workers of each node's ztunnel, and how much."""

from __future__ import annotations

import click

from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.pages import Row
from agent.cli.views.traffic import tenant_rows

COLUMNS = (
    Column("NODE", "node"),
    Column("KIND", "kind"),
    Column("TENANT", "name"),
    Column("CPU", "cpu_s", form="{:.3f}s"),
    Column("CONNECTIONS", "connections"),
    Column("TUNNELS", "tunnels"),
    Column("QUEUED", "queued"),
    Column("REFUSED", "refused"),
    Column("IDLE-TUNNELS", "idle_tunnels", wide=True),
    Column("HANDSHAKES", "handshakes", wide=True),
    Column("LABEL-SETS", "label_sets", wide=True),
    Column("OWES", "owes_ms", wide=True, form="{}ms"),
)


@click.command()
@read_options(namespaced=False)
def top(ask: Reading) -> None:
    """List the tenants that use the ztunnels most: pods, peers and addresses.

    CPU is the CPU time spent on it since the worker's start. QUEUED: bytes that wait
    because nobody takes them. OWES: work that led to nothing; the tenant is read later.

    Example: tulle top --watch
    """

    def rows() -> list[Row]:
        return tenant_rows(ask.read("ztunnel"))

    ask.show(rows, COLUMNS, "nobody uses a ztunnel")
