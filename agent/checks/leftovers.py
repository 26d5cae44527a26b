"""Pins of a node that has another name by now: its agent is gone for good, and nobody ends them."""

from __future__ import annotations

from pathlib import Path

from agent.checks.check import Check, Result, judged
from agent.config import LOCK, AgentConfig, node_folder, node_of_pins
from control.kit import lock


def left_behind(config: AgentConfig) -> Check:
    """A warning if another node's programs are on this host's hooks and no agent serves them. The
    nodes of a lab share a host: each of them has an agent."""
    names, error = [], ""
    try:
        names = left(config.pin_root, config.run_dir)
    except OSError as exc:
        error = str(exc)
    return judged(
        "TUL1007",
        "hooks",
        "no programs are left of a node of another name",
        error=error or ", ".join(names),
        hint="if the node was renamed: tulle-agent --uninstall --node NAME, or a reboot",
        level=Result.WARNING,
    )


def left(own: Path, run_dir: Path) -> list[str]:
    """Names of other nodes that have pins beside `own`, and in `run_dir` a lock that nobody has."""
    if not own.parent.is_dir():
        return []
    others = sorted(node_of_pins(each) for each in own.parent.iterdir() if each.name != own.name)
    locks = {name: node_folder(run_dir, name) / LOCK for name in others}
    return [name for name, path in locks.items() if path.exists() and not lock.is_held(path)]
