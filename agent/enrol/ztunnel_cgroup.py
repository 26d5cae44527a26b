"""A cgroup for each ztunnel, by which the kernel knows its sockets; captures nothing.

Exemption must cover the ztunnel and nothing else. So a ztunnel that shares its cgroup with other
processes (the root, a login session, a supervisor's service) moves to `tulle/<node>/ztunnel-<pid>`.
A container of a pod keeps its own, with its limits: others in it are its probes, or a debugger's.
"""

from __future__ import annotations

import errno
import logging
import re
from pathlib import Path

from agent.datapath import cgroups
from agent.datapath.process_cgroup import directory_of
from control.kit.log import event

log = logging.getLogger("cgroup")

_PREFIX = "ztunnel-"
_POD = re.compile(r"(?:^|-)pod[0-9a-f]{8}[-_](?:[0-9a-f]{4}[-_]){3}[0-9a-f]{12}(?:\.slice)?$")


def own_folder(root: Path, node: str) -> Path:
    return root / "tulle" / node


def settle(root: Path, node: str, pid: int) -> Path:
    """Directory of a cgroup with this ztunnel alone; the ztunnel is moved if need be."""
    folder = directory_of(pid, root)
    if folder is not None and folder != root and _is_its_own(folder, pid):
        return folder
    target = own_folder(root, node)
    target.parent.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    target = cgroups.create(target / f"{_PREFIX}{pid}")
    cgroups.move(pid, target)
    event(log, logging.INFO, "ztunnel.moved", pid=pid, cgroup=target)
    return target


def _is_its_own(folder: Path, pid: int) -> bool:
    return _is_container(folder) or cgroups.members(folder) <= cgroups.descendants(pid)


def _is_container(folder: Path) -> bool:
    """True below a pod's cgroup, as kubelets name it: …/pod<uid>/x or …-pod<uid>.slice/x."""
    return _POD.search(folder.parent.name) is not None


def is_over(folder: Path) -> bool:
    """True when no process is left in it, so that no socket of it can connect again."""
    try:
        return not cgroups.members(folder)
    except OSError as exc:
        return exc.errno in (errno.ENOENT, errno.ENODEV)  # removed, or being removed


def leftovers(root: Path, node: str) -> list[Path]:
    """Cgroups that were made for ztunnels, in this run and earlier ones."""
    folder = own_folder(root, node)
    return sorted(folder.glob(f"{_PREFIX}*")) if folder.is_dir() else []


def remove(root: Path, node: str, folder: Path) -> None:
    """Remove a cgroup that we made; one that is in use stays."""
    if folder.parent == own_folder(root, node):
        try:
            cgroups.remove(folder)
        except OSError as exc:
            event(log, logging.DEBUG, "cgroup.kept", cgroup=folder, error=exc)


def remove_all(root: Path, node: str) -> None:
    """Remove all our cgroups of this node; processes in them move back to the root first."""
    folder = own_folder(root, node)
    for leaf in leftovers(root, node):
        for pid in sorted(cgroups.members(leaf)):
            try:
                (root / "cgroup.procs").write_text(str(pid))
            except OSError as exc:
                event(log, logging.WARNING, "cgroup.process_kept", pid=pid, error=exc)
        remove(root, node, leaf)
    for directory in (folder, folder.parent):
        try:
            cgroups.remove(directory)
        except OSError:
            return  # another node still has one
