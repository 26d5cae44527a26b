"""Flags and output that the verbs of `tulle-control` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from control.kit.flags import Duration
from control.kit.terminal import Terminal
from control.server.ca.authority import ROOT_LIFETIME

DEFAULT_STATE = "/var/lib/tulle/control"
DURATION = Duration(min_s=1, max_s=ROOT_LIFETIME.total_seconds())

_Command = TypeVar("_Command", bound=Callable[..., Any])


def option(*names: str, **attributes: Any) -> Callable[[_Command], _Command]:
    """A flag that is also an environment variable TULLE_CONTROL_<FLAG>."""
    flag = next(name for name in names if name.startswith("--"))
    variable = "TULLE_CONTROL_" + flag[2:].replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


STATE = option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    help="Folder for the CA (ca/), the token key and the nodes' reports. Keep it.",
)
ROOT_NAMESPACE = option(
    "--root-namespace", default="istio-system", help="Namespace of mesh-wide policies."
)
FOLDER: dict[str, Any] = {
    "type": click.Path(path_type=Path, file_okay=False),
    "help": "Folder of Kubernetes manifests (*.yaml, *.yml, *.json), watched with its sub-folders.",
}
DRY_RUN = option(
    "--dry-run-policies",
    is_flag=True,
    help="Deliver policies annotated istio.io/dry-run (they are logged, never enforced).",
)


@contextmanager
def output() -> Iterator[None]:
    """Exit 2 when standard output takes no more: a token that was cut is no token."""
    with Terminal() as terminal:
        yield
        if lost := terminal.failure():
            click.echo(f"error: standard output: {lost}", err=True)
            sys.exit(2)
