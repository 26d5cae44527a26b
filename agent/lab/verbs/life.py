"""`tulle lab up` and `tulle lab down`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import click
from click.core import ParameterSource

from agent.lab.lab import Options
from agent.lab.verbs.context import lab_of, reporting_lab_of
from control.kit.errors import ConfigError, MeshError


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--nodes", type=click.IntRange(1), help="Spread the pods over N new nodes n1, n2, …")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes of each ztunnel.",
)
@click.option("--unmeshed", is_flag=True, help="Only nodes and pods: no control plane, no mesh.")
@click.option("--keep", is_flag=True, help="On failure, leave what was built.")
@click.pass_context
def up(
    ctx: click.Context, folder: Path, nodes: int | None, workers: int, unmeshed: bool, keep: bool
) -> None:
    """Bring up the lab in FOLDER.

    FOLDER holds manifests (*.yaml) and lab.yaml, which lists the nodes, the node of each pod and
    the command each pod runs.

    Example: tulle lab up agent/lab/shop
    """
    if os.geteuid() != 0:
        raise ConfigError("a lab needs root: it creates network namespaces")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # taken down as after Ctrl-C
    lab, had_one = reporting_lab_of(ctx), lab_of(ctx).store.exists()
    try:
        lab.up(folder, Options(nodes or 0, workers, unmeshed, keep))
    except (KeyboardInterrupt, MeshError):
        if lab.store.exists() and not had_one:
            click.echo(f"what was built is still there; remove it: {_removal(ctx)}", err=True)
        raise
    click.echo(f"the lab is up; take it down: {_removal(ctx)}", err=True)


def _removal(ctx: click.Context) -> str:
    """The command that finds this lab again."""
    root = ctx.find_root()
    is_typed = root.get_parameter_source("run_dir") is ParameterSource.COMMANDLINE
    return f"tulle --run-dir {root.obj} lab down" if is_typed else "tulle lab down"


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command()
@click.pass_context
def down(ctx: click.Context) -> None:
    """Remove the lab and everything it made. Safe to repeat.

    Example: tulle lab down
    """
    if not reporting_lab_of(ctx).down():
        click.echo("no lab is up", err=True)
