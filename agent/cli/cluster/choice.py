"""The mesh that a command means, this host's or a cluster's: decided once, from the words and from
what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from control.kit.flags import Duration

_FILE, _CONTEXT = "tulle.kubeconfig", "tulle.context"


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """A kubeconfig (None: as kubectl finds it) and a context in it (empty: the current one)."""

    kubeconfig: Path | None = None
    context: str = ""


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--kubeconfig and --context, kept in the context of the command line."""

    def keep(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def kept(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
            if value:
                ctx.meta[key] = value

        return kept

    command = click.option(
        "--context",
        metavar="NAME",
        expose_value=False,
        callback=keep(_CONTEXT),
        help="Context of the kubeconfig.",
    )(command)
    return click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=keep(_FILE),
        help="Ask the cluster of this file, as kubectl.",
    )(command)


def patience(meaning: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--timeout of a command that waits for what happens in a cluster."""
    return click.option(
        "--timeout",
        type=Duration(1, 86400),
        default="5m",
        show_default=True,
        help=meaning,
    )


def of_cluster(ctx: click.Context) -> ClusterChoice:
    """The cluster that is meant by a command that knows no host."""
    return ClusterChoice(ctx.meta.get(_FILE), ctx.meta.get(_CONTEXT, ""))


def chosen(ctx: click.Context) -> ClusterChoice | None:
    """The cluster, or None for this host's mesh: said by an option, by --run-dir, by the mesh that
    is here, or by a kubeconfig or a pod's own access, in this order."""
    choice = of_cluster(ctx)
    root = ctx.find_root()
    if choice != ClusterChoice():
        return choice
    said = root.get_parameter_source("run_dir")
    if said not in (None, ParameterSource.DEFAULT) or is_mesh_here(Path(root.obj)):
        return None
    return choice if knows_cluster() else None


def is_mesh_here(run_dir: Path) -> bool:
    """True when a mesh has left anything here; a folder that is closed to us counts."""
    try:
        return any(run_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True


def knows_cluster() -> bool:
    """A kubeconfig is named or at home, or this is a pod."""
    named = os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST")
    home = Path(os.environ.get("HOME") or "/root") / ".kube/config"
    return bool(named) or home.is_file()
