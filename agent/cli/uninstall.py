"""`tulle uninstall`: take Tulle out of a cluster; every other pod goes on running."""

from __future__ import annotations

import os
import sys

import click

from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster import leave
from agent.cli.cluster import uninstall as steps
from agent.cli.cluster.choice import cluster_options, of_cluster, patience
from agent.cli.cluster.session import ask
from agent.cli.cluster.uninstall import Removal
from control.kit.errors import MeshError
from control.kit.terminal import is_interactive


@click.command()
@click.option("--purge", is_flag=True, help="Definitions, policies, keys and labels, too.")
@click.option("--force", is_flag=True, help="Go on without nodes that do not answer.")
@click.option("--nodes", is_flag=True, help="Clean pods and nodes alone, as Helm's hook does.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@patience("Longest wait for the nodes, at each step.")
@cluster_options
@click.pass_context
def uninstall(
    ctx: click.Context, purge: bool, force: bool, nodes: bool, yes: bool, timeout: float
) -> None:
    """Take Tulle out of a cluster. All pods go on running, outside the mesh.

    The mesh lets its pods go, the agents clean their nodes, then the objects are removed. Policies
    and the CA's key stay, unless --purge. Repeating it is safe. --nodes changes the parts so that
    they let go, and leaves their objects to whoever put them there; a node that does not answer in
    time is named, and keeps its part.

    Example: tulle uninstall --purge
    """
    if nodes and purge:
        raise click.UsageError("--nodes leaves all objects: not with --purge")
    if not yes and is_interactive(sys.stdin) and not click.confirm(_question(purge), err=True):
        raise MeshError("nothing was removed")
    if nodes:
        where = os.environ.get("TULLE_POD_NAMESPACE") or NAMESPACE
        ask(of_cluster(ctx), lambda client: leave.carry_out(client, where, timeout, _say))
        return
    removal = Removal(purge, force, timeout)
    ask(of_cluster(ctx), lambda client: steps.carry_out(client, removal, _say))
    _say("Tulle is out of the cluster")


def _question(purge: bool) -> str:
    more = ", every policy and the CA's key" if purge else ""
    return f"remove Tulle{more} from the cluster?"


def _say(line: str) -> None:
    click.echo(line, err=True)
