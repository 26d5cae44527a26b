"""`tulle connections`: open connections in the mesh, with the identities of both ends."""

from __future__ import annotations

from dataclasses import replace

import click

from agent.cli.mesh import MeshDump
from agent.cli.options import Reading, read_options
from agent.cli.render import Column
from agent.cli.views.objects import workload_rows
from agent.cli.views.pages import Filter, Row, has_ztunnel, ztunnels
from agent.cli.views.traffic import connection_rows
from control.kit.choices import absent
from control.kit.errors import ConfigError

COLUMNS = (
    Column("DIRECTION", "direction"),
    Column("SRC", "src"),
    Column("DST", "dst"),
    Column("ORIG-DST", "orig_dst"),
    Column("SRC-ID", "src_id"),
    Column("DST-ID", "dst_id"),
    Column("PATH", "path"),
    Column("AGE", "age"),
    Column("BYTES", "bytes"),
    Column("POLICY", "policy"),
    Column("NODE", "node", wide=True),
    Column("PROTOCOL", "protocol", wide=True),
    Column("SERVICE", "service", wide=True),
    Column("SRC-ADDRESS", "src_address", wide=True),
    Column("ACTUAL-DST", "actual_dst", wide=True),
    Column("SENT", "bytes_sent", wide=True),
    Column("RECEIVED", "bytes_received", wide=True),
    Column("WORKER", "worker", wide=True),
)


@click.command()
@click.argument("pod", required=False)
@click.option(
    "--direction", type=click.Choice(["inbound", "outbound"]), help="Show this side only."
)
@read_options(labelled=True)
def connections(ask: Reading, pod: str | None, direction: str | None) -> None:
    """List open connections of POD (NAMESPACE/POD or a name), or of all pods.

    A connection with both ends in the mesh is listed twice: outbound where it leaves, inbound
    where it arrives. PATH: hbone through a tunnel, direct inside the node's kernel, tcp in the
    clear.

    Example: tulle connections shop/ratings-v1 --direction inbound
    """
    wanted = named_pod(ask.wanted, pod) if pod else ask.wanted

    def rows() -> list[Row]:
        found = ask.read("ztunnel")
        if pod:
            expect_captured(found, pod, wanted)
        return connection_rows(found, wanted, direction or "")

    ask.show(rows, COLUMNS, "no open connections")


def named_pod(wanted: Filter, pod: str) -> Filter:
    """The filter for one pod; a namespace before its name wins over the option."""
    namespace, slash, name = pod.rpartition("/")
    return replace(wanted, name=name, namespace=namespace if slash else wanted.namespace)


def _pods(found: MeshDump, pod: str, namespace: str) -> set[str]:
    """Names of pods, written like this one's: with their namespace, or without."""
    if "/" not in pod:
        return {row["name"] for row in workload_rows(found, Filter(namespace))}
    return {f"{row['namespace']}/{row['name']}" for row in workload_rows(found, Filter())}


def expect_captured(found: MeshDump, pod: str, wanted: Filter) -> None:
    """Tell a pod that no ztunnel serves from one without traffic; ConfigError: no such pod."""
    named = replace(wanted, labels=())
    if has_ztunnel(found, named) or not any(ztunnels(found)):
        return
    if not workload_rows(found, named):
        raise ConfigError(absent("pod", pod, _pods(found, pod, wanted.namespace)))
    click.echo(f"{pod} is not captured: no ztunnel sees its connections", err=True)
