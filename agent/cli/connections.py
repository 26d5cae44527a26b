"""`tulle connections`: what the tunnels carry right now, with the identities at both ends."""

from __future__ import annotations

from dataclasses import replace

import click

from agent.cli import views
from agent.cli.options import Reading, read_options
from agent.cli.render import Column, show

COLUMNS = (
    Column("DIRECTION", "direction"),
    Column("SRC", "src"),
    Column("DST", "dst"),
    Column("ORIG-DST", "orig_dst"),
    Column("SRC-ID", "src_id"),
    Column("DST-ID", "dst_id"),
    Column("PROTOCOL", "protocol"),
    Column("AGE", "age"),
    Column("BYTES", "bytes"),
    Column("POLICY", "policy"),
    Column("NODE", "node", wide=True),
    Column("SERVICE", "service", wide=True),
    Column("SRC-ADDRESS", "src_address", wide=True),
    Column("ACTUAL-DST", "actual_dst", wide=True),
    Column("SENT", "bytes_sent", wide=True),
    Column("RECEIVED", "bytes_received", wide=True),
    Column("WORKER", "worker", wide=True),
)


@click.command()
@click.argument("pod", required=False)
@click.option("--direction", type=click.Choice(["inbound", "outbound"]))
@read_options(labelled=True)
def connections(ask: Reading, pod: str | None, direction: str | None) -> None:
    """List open connections, of POD (NAMESPACE/POD or a name) or of all.

    Example: tulle connections shop/ratings-v1 --direction inbound
    """
    wanted = ask.wanted
    if pod:
        namespace, slash, name = pod.rpartition("/")
        wanted = replace(wanted, name=name, namespace=namespace if slash else wanted.namespace)
    show(
        ask.out,
        lambda: views.connections(ask.read("ztunnel"), wanted, direction or ""),
        COLUMNS,
        "no open connections",
    )
