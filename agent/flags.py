"""Flags of `tulle-agent`, with their environment variables and defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent import config
from agent.cni.options import cni_options
from control.kit.flags import Duration, ListenAddress

_Command = Callable[..., None]


def _option(
    name: str, *more: str, shared: bool = False, also: tuple[str, ...] = (), **rest: Any
) -> Callable[[_Command], _Command]:
    """A flag, also set by TULLE_AGENT_<NAME>; by TULLE_<NAME> too if all processes share it."""
    upper = name.removeprefix("--").replace("-", "_").upper()
    names = [f"TULLE_AGENT_{upper}", f"TULLE_{upper}"] if shared else [f"TULLE_AGENT_{upper}"]
    return click.option(
        name, *more, envvar=[*names, *also], show_envvar=True, show_default=True, **rest
    )


_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    _option(
        "--node",
        shared=True,
        also=("NODE_NAME",),
        required=True,
        help="This node's name in the control plane.",
    ),
    _option("--control", shared=True, help="Control plane, HOST:PORT (gRPC over TLS)."),
    _option(
        "--control-root", shared=True, type=_FILE, help="Root certificate of the control plane."
    ),
    _option("--control-name", shared=True, help="Name in its certificate.  [default: the HOST]"),
    _option(
        "--replicas",
        default="",
        help="HOST:PORT of a name with the address of each replica of the control plane: all are "
        "told what is captured.",
    ),
    _option(
        "--token", shared=True, type=_FILE, help="File with this node's token; read at each use."
    ),
    _option(
        "--run-dir",
        shared=True,
        type=_FOLDER,
        default=config.DEFAULT_RUN_DIR,
        help="Folder for sockets and state.",
    ),
    _option("--zds", type=_FILE, help="Socket for ztunnels.  [default: <run-dir>/<node>/zds.sock]"),
    _option(
        "--bpffs", type=_FOLDER, default=config.DEFAULT_BPFFS, help="BPF file system for the pins."
    ),
    _option("--cgroup-root", type=_FOLDER, help="cgroup2 mount.  [default: found]"),
    _option(
        "--cache",
        type=_FOLDER,
        default=config.DEFAULT_CACHE,
        help="Folder for compiled eBPF programs.",
    ),
    _option(
        "--metrics",
        type=ListenAddress(""),
        default="127.0.0.1:15025",
        help="Metrics and readiness; empty: none.",
    ),
    _option(
        "--drain",
        "drain_s",
        type=Duration(max_s=300),
        default=config.DEFAULT_DRAIN_S,
        help="Time after the news of a release in which peers may still use HBONE (2, 500ms).",
    ),
    _option(
        "--linger",
        "linger_s",
        type=Duration(max_s=300),
        default=config.DEFAULT_LINGER_S,
        help="Time after a release for which its ztunnel keeps what is open.",
    ),
    _option(
        "--kubelet-port",
        type=click.IntRange(0, 65535),
        default=config.DEFAULT_KUBELET_PORT,
        help="Port of this node's kubelet, whose probes pass under STRICT; 0: they do not.",
    ),
    click.option(
        "--direct/--no-direct",
        default=True,
        show_default=True,
        envvar="TULLE_AGENT_DIRECT",
        show_envvar=True,
        help="Let connections inside this node leave out the tunnel.",
    ),
    click.option(
        "--shortcut/--no-shortcut",
        default=True,
        show_default=True,
        envvar="TULLE_AGENT_SHORTCUT",
        show_envvar=True,
        help="Let such connections, once open, bypass the host's network stack (Linux 6.6).",
    ),
    click.option(
        "--kubernetes",
        is_flag=True,
        envvar="TULLE_AGENT_KUBERNETES",
        show_envvar=True,
        help="Run on a Kubernetes node: pods that run already are found through the container "
        "runtime.",
    ),
    _option("--cri-socket", type=_FILE, help="The runtime's socket.  [default: one of the usual]"),
    cni_options,
    _option("--log-level", shared=True, default="info", help="LEVEL, or LEVEL,SCOPE:LEVEL,…"),
    _option(
        "--log-format",
        shared=True,
        type=click.Choice(["text", "json"]),
        default="text",
        help="Format of log lines.",
    ),
    click.option(
        "--uninstall",
        "is_uninstall",
        is_flag=True,
        help="Remove this node's programs, pins and cgroups, then exit. Its pods leave the mesh.",
    ),
)


def agent_flags(command: _Command) -> _Command:
    """All of them, in the order of the help page."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
