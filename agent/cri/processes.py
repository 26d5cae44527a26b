"""Pods as /proc shows them: who lives in a namespace; pods' processes where no runtime answers.

Needs the host's process ids. Without them little is found, and nothing is concluded from that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
# cgroupfs: …/pod<uid>/…; systemd: …-pod<uid with _ for ->.slice/…; a static pod's has no dashes.
_POD_CGROUP = re.compile(
    r"/(?:[a-z-]+-)?pod([0-9a-f]{32}|[0-9a-f]{8}[-_](?:[0-9a-f]{4}[-_]){3}[0-9a-f]{12})"
    r"(?:\.slice)?(?:/|$)",
    re.MULTILINE,
)


def inhabited(namespaces: Iterable[int], proc: Path = PROC) -> set[int]:
    """Those of the namespaces (by inode) in which a process lives. Takes some milliseconds."""
    wanted = set(namespaces)
    if not wanted:
        return set()
    return {inode for _, inode in _namespaces(proc) if inode in wanted}


def pods(proc: Path = PROC) -> dict[str, str]:
    """uid → path of its network namespace, for pods with a namespace of their own."""
    host = _inode(proc / "1") or _inode(proc / "self")
    found: dict[str, str] = {}
    for folder, inode in _namespaces(proc):
        if inode == host:
            continue
        uid = pod_of(_read(folder / "cgroup"))
        if uid is not None:
            found.setdefault(uid, str(folder / "ns" / "net"))
    return found


def pod_of(cgroup: str) -> str | None:
    """The uid of the pod in whose cgroup the text of a /proc/PID/cgroup lies."""
    match = _POD_CGROUP.search(cgroup)
    return None if match is None else match[1].replace("_", "-")


def _namespaces(proc: Path) -> Iterator[tuple[Path, int]]:
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = proc / str(pid)
        inode = _inode(folder)
        if inode is not None:
            yield folder, inode


def _inode(folder: Path) -> int | None:
    try:
        return os.stat(folder / "ns" / "net").st_ino
    except OSError:
        return None  # it has ended, or is not ours to see


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
