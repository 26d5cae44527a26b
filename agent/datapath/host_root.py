"""Paths of the host as a container sees them, below the root of the host's first process.

A runtime names a namespace by its path in the host's mount namespace, where links mean the host's
files: /var/run is one to /run. The kernel would follow an absolute link from our own root.
"""

import os
from collections import deque

HOST_ROOT = "/proc/1/root"  # with the host's process ids; else it is our own
_LINKS_MAX = 40  # the kernel's own limit


def visible_namespace(path: str, root: str = HOST_ROOT) -> str:
    """The path at which a namespace of the host can be opened here; `path` itself if at none."""
    if is_namespace(path):
        return path
    moved = below(root, path)
    return moved if moved is not None and is_namespace(moved) else path


def is_namespace(path: str) -> bool:
    """False also for the empty file that stands for one where its mount has not come through."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except (OSError, ValueError):
        return False


def below(root: str, path: str) -> str | None:
    """The place of `path` below `root`, with links on the way followed there; None: too many."""
    left, at, links = deque(path.split("/")), [root], 0
    while left:
        part = left.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            at[1:] = at[1:-1]
            continue
        try:
            target = os.readlink("/".join((*at, part)))
        except (OSError, ValueError):  # no link, or nothing
            at.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            return None
        if target.startswith("/"):
            del at[1:]
        left.extendleft(reversed(target.split("/")))
    return "/".join(at)
