"""Takes everything that an agent leaves on its node away, once no agent runs there."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from agent import config
from agent.config import LOCK
from agent.datapath.folder import HOLDER
from agent.datapath.node import NodeDatapath
from agent.enrol import ztunnel_cgroup
from control.kit import lock
from control.kit.log import event

log = logging.getLogger("agent")

OTHER = "another tulle-agent"


def serving(run_dir: Path) -> list[str]:
    """The nodes that have an agent on this host. The CNI configuration is theirs: without it pods
    would start outside the mesh while a node's former name is taken away."""
    found = sorted(each.parent.name for each in run_dir.glob(f"*/{LOCK}") if lock.is_held(each))
    if found:
        event(log, logging.INFO, "cni.left", served=found)
    return found


def uninstall(node: str, run_dir: Path, pins: Path, cgroup_root: Path, cache: Path) -> None:
    """Remove this node's programs, pins, cgroups and files; its pods go on unencrypted.

    AlreadyServed: an agent runs, which would put some of it back.
    """
    folder = config.node_folder(run_dir, node)
    if folder.exists():
        with lock.held(folder / LOCK, OTHER):
            _uninstall(node, folder, pins, cgroup_root, cache)
    else:
        _uninstall(node, folder, pins, cgroup_root, cache)
    event(log, logging.INFO, "agent.uninstalled", node=node)


def _uninstall(node: str, folder: Path, pins: Path, cgroup_root: Path, cache: Path) -> None:
    pinned = config.pin_root(pins, node)
    if pinned.exists():
        with lock.held_folder(pinned / HOLDER, f"another agent of node {node}"):
            NodeDatapath.open(pinned, cgroup_root, cache).destroy()
    with contextlib.suppress(OSError):
        pinned.parent.rmdir()  # unless another node of this host has pins there
    ztunnel_cgroup.remove_all(cgroup_root, node)
    sockets = [folder / f"{name}.sock" for name in ("agent", "zds", "direct")]
    sockets += [folder / "cni.sock", folder / "cni.boot"]
    for path in [*folder.glob("state/*.json"), *sockets, folder / LOCK]:
        path.unlink(missing_ok=True)
    for directory in (folder / "state", folder):
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            break  # it has files of others, such as the ztunnel's socket
