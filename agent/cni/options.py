"""Flags of `tulle-agent` about CNI, and its verbs for the files on the host."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent.cni import keeper
from agent.cni.namespaces import NamespaceBook
from agent.cni.places import find
from agent.config import (
    DEFAULT_CNI_PROGRAM,
    DEFAULT_EXEMPT,
    DEFAULT_STATE_DIR,
    CniConfig,
    node_folder,
)
from agent.fetch import FetchError, checked, request
from control.kit.errors import ConfigError, MeshError

_FOLDER = click.Path(path_type=Path, file_okay=False)
_ASK_S = 10.0


def _option(name: str, **rest: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    variable = f"TULLE_AGENT_{name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **rest)


_FLAGS = (
    click.option(
        "--cni/--no-cni",
        "is_cni",
        default=False,
        show_default=True,
        envvar="TULLE_AGENT_CNI",
        show_envvar=True,
        help="Keep our CNI plugin in the runtime's chain: pods start when they are captured.",
    ),
    _option(
        "--cni-conf-dir", type=_FOLDER, help="CNI configurations of the host.  [default: found]"
    ),
    _option("--cni-bin-dir", type=_FOLDER, help="CNI programs of the host.  [default: found]"),
    _option(
        "--cni-host-prefix",
        type=_FOLDER,
        default=Path("/"),
        help="Our view of the host's root: it is put before both.",
    ),
    _option(
        "--cni-program",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_CNI_PROGRAM,
        help="The plugin, to be copied to the host.",
    ),
    _option(
        "--cni-state-dir",
        type=_FOLDER,
        default=DEFAULT_STATE_DIR,
        help="Folder that outlives a reboot, with the same path on the host.",
    ),
    _option(
        "--cni-exempt",
        default=DEFAULT_EXEMPT,
        help="Namespaces whose pods start, if outside the mesh, when nothing else is known.",
    ),
)


def cni_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for each in reversed(_FLAGS):
        command = each(command)
    return command


def take(flags: dict[str, Any], is_uninstall: bool = False) -> CniConfig | None:
    """Take the flags about CNI out of all flags; None: there is to be no plugin. What is taken off
    a Kubernetes node may have one, whatever the flags say."""
    chosen = CniConfig(
        program=flags.pop("cni_program", DEFAULT_CNI_PROGRAM),
        conf_dir=flags.pop("cni_conf_dir", None),
        bin_dir=flags.pop("cni_bin_dir", None),
        host_prefix=flags.pop("cni_host_prefix", Path("/")),
        state_dir=flags.pop("cni_state_dir", DEFAULT_STATE_DIR),
        exempt=tuple(filter(None, flags.pop("cni_exempt", DEFAULT_EXEMPT).split(","))),
    )
    is_wanted = flags.pop("is_cni", False) or (is_uninstall and flags.get("kubernetes", False))
    return chosen if is_wanted else None


def remove_from_host(chosen: CniConfig, node: str) -> dict[str, Any]:
    """Take our files away without an agent."""
    done = keeper.uninstall(find(chosen.host_prefix, chosen.conf_dir, chosen.bin_dir))
    NamespaceBook(chosen.state_dir / node / "namespaces").remove()
    return done


@click.group("cni")
def verbs() -> None:
    """The plugin's files on this host."""


def _guarded(command: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """A known failure is one line for people, and exit code 1."""

    @functools.wraps(command)
    def guarded(flags: dict[str, Any]) -> None:
        try:
            command(flags)
        except (MeshError, OSError) as exc:
            raise click.ClickException(str(exc)) from exc

    return guarded


@verbs.command("uninstall")
@click.pass_obj
@_guarded
def _uninstall(flags: dict[str, Any]) -> None:
    """Remove our configuration, then the plugin.

    Pods start without the mesh from then on. A running agent does it, and leaves it so until it is
    started again. Without one it is done here; no control plane is needed.
    """
    node, socket = flags["node"], _socket(flags)
    try:
        _print(checked(request(socket, "POST", "/cni/uninstall", timeout_s=_ASK_S), str(socket)))
    except FetchError as exc:
        if exc.status not in (0, 404):
            raise
        chosen = take({**flags, "is_cni": True})
        assert chosen is not None
        _print(remove_from_host(chosen, node))


@verbs.command("install")
@click.pass_obj
@_guarded
def _install(flags: dict[str, Any]) -> None:
    """Undo `uninstall`: the running agent puts its files back."""
    socket = _socket(flags)
    answer = request(socket, "POST", "/cni/install", timeout_s=_ASK_S)
    if answer.status == 404:
        raise ConfigError("the agent was started without --cni")
    _print(checked(answer, str(socket)))


@verbs.command("status")
@click.pass_obj
@_guarded
def _status(flags: dict[str, Any]) -> None:
    """Show what the running agent keeps on the host."""
    socket = _socket(flags)
    _print(checked(request(socket, "GET", "/status", timeout_s=_ASK_S), str(socket)).get("cni"))


def _socket(flags: dict[str, Any]) -> Path:
    return node_folder(flags["run_dir"], flags["node"]) / "agent.sock"


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=1))
