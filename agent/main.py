"""`tulle-agent`, the command line: flags in, exit codes out."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from agent import config
from agent.cni import options as cni_flags
from agent.config import AgentConfig
from agent.datapath import cgroups
from agent.flags import agent_flags
from control.kit.command import PlainGroup
from control.kit.descriptors import raise_limit
from control.kit.errors import ConfigError, KernelError, MeshError, os_error_text
from control.kit.log import event, setup
from control.kit.version import version

log = logging.getLogger("agent")


@click.group(
    cls=PlainGroup,
    invoke_without_command=True,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(version(), prog_name="tulle-agent", message="%(prog)s %(version)s")
@agent_flags
@click.pass_context
def main(
    context: click.Context, /, log_level: str, log_format: str, is_uninstall: bool, **flags: Any
) -> None:
    """The node agent: captures the traffic of this node's pods for the ztunnel.

    The CNI plugin registers pods (POST /pods on <run-dir>/<node>/agent.sock), and the control plane
    decides which of them belong in the mesh. A stopped agent leaves everything as it is: captured
    pods stay captured, and the next agent takes them over. To take a node out of the mesh, use
    --uninstall.

    \b
    Example:
      tulle-agent --node a --control 10.0.0.1:15012 \\
          --control-root root.pem --token a.token
    """
    try:
        setup(log_level, log_format, is_strict=True)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--log-level") from exc
    try:
        context.obj = dict(flags)
        if context.invoked_subcommand is not None:
            return
        cni = cni_flags.take(flags, is_uninstall)
        root = flags["cgroup_root"] or _cgroup_root(flags["kubernetes"])
        if is_uninstall:
            from agent.uninstall import serving, uninstall

            if cni is not None and not serving(flags["run_dir"]):
                cni_flags.remove_from_host(cni, flags["node"])
            uninstall(flags["node"], flags["run_dir"], flags["bpffs"], root, flags["cache"])
            return
        # Each of the two loads much that the other does not need, and help needs neither.
        from agent.serve import serve

        raise_limit()  # eight for each pod that joins at the same time
        asyncio.run(serve(_config({**flags, "cni": cni}, root)))
    except (MeshError, OSError, ValueError) as exc:
        hint = {"hint": "tulle check --pre"} if isinstance(exc, KernelError) else {}
        why = os_error_text(exc) if isinstance(exc, OSError) else str(exc)
        event(log, logging.ERROR, "agent.failed", error=why, **hint)
        sys.exit(2 if isinstance(exc, ConfigError) else 1)


def _cgroup_root(is_container: bool) -> Path:
    """The mount of the whole cgroup2 tree; a part of it would capture that part alone."""
    if is_container and not cgroups.enter_host_namespace():
        event(log, logging.WARNING, "cgroup.namespace_not_entered", hint="it needs hostPID")
    root = cgroups.find_root()
    if is_container and not cgroups.is_whole(root):
        raise ConfigError(f"{root} is a part of the cgroup2 tree: mount the host's /sys/fs/cgroup")
    return root


def _config(flags: dict[str, Any], cgroup_root: Path) -> AgentConfig:
    node = flags["node"]
    if not node or "/" in node or node.startswith("."):
        raise ConfigError(f"--node: not a valid name: {node!r}")
    for flag in ("control", "control_root"):
        if not flags[flag]:
            raise ConfigError(f"--{flag.replace('_', '-')} is missing")
    zds = flags["zds"] or config.node_folder(flags["run_dir"], node) / "zds.sock"
    if flags.get("replicas"):
        config.host_of(flags["replicas"], "--replicas")
    name = flags["control_name"] or config.host_of(flags["control"])
    return AgentConfig(**{**flags, "zds": zds, "control_name": name, "cgroup_root": cgroup_root})


main.add_command(cni_flags.verbs)


if __name__ == "__main__":
    main()
