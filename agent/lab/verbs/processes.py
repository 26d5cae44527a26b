"""`tulle lab restart`, `stop` and `kill`: the lab's own control plane, agents and ztunnels."""

from __future__ import annotations

from collections.abc import Sequence

import click

from agent.lab import changes
from agent.lab.verbs.context import reporting_lab_of

_WHAT = click.Choice(["ztunnel", "agent", "control"])


@click.command()
@click.argument("what", type=_WHAT)
@click.argument("node", required=False)
@click.pass_context
def restart(ctx: click.Context, what: str, node: str | None) -> None:
    """Start a process of the mesh, stopping it first if it runs.

    Without NODE, on all nodes.

    Example: tulle lab restart ztunnel n1
    """
    _echo_all(changes.restart(reporting_lab_of(ctx), what, node), "started")
    if what == "control":
        click.echo("the nodes reconnect within seconds: tulle status", err=True)


@click.command()
@click.argument("what", type=_WHAT)
@click.argument("node", required=False)
@click.pass_context
def stop(ctx: click.Context, what: str, node: str | None) -> None:
    """Stop a process of the mesh (SIGTERM).

    Without NODE, on all nodes.

    Example: tulle lab stop control
    """
    _echo_all(changes.stop(reporting_lab_of(ctx), what, node), "stopped")


@click.command()
@click.argument("what", type=_WHAT)
@click.argument("node", required=False)
@click.pass_context
def kill(ctx: click.Context, what: str, node: str | None) -> None:
    """Kill a process of the mesh and its workers (SIGKILL).

    Without NODE, on all nodes.

    Example: tulle lab kill ztunnel n1
    """
    _echo_all(changes.kill(reporting_lab_of(ctx), what, node), "killed")


def _echo_all(names: Sequence[str], done: str) -> None:
    for name in names:
        click.echo(f"{name} {done}")
