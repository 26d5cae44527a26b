"""Finds the node's kubelet: the process that listens on its port, in this network namespace.

Not by name or path, which anybody may have: a port has one owner. It looks, and attaches nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import cgroups, sockets
from agent.datapath.netlink import SOCK_DIAG, Netlink
from agent.datapath.process_cgroup import PROCESSES, directory_of
from agent.kubelet import place
from agent.kubelet.reasons import Unrecognised

# Descriptors that one search reads, 2 µs each: those of some thousand busy processes.
DESCRIPTORS_MAX = 500_000
SHARERS_MAX = 8  # names of processes beside it that are shown


@dataclass(frozen=True, slots=True)
class Kubelet:
    pid: int
    cgroup: Path
    # Names of processes in its cgroup that it did not start: they are vouched for as well.
    shared_with: tuple[str, ...] = ()


def find(port: int, root: Path, processes: Path = PROCESSES) -> Kubelet | Unrecognised:
    """KernelError, OSError: it could not be looked for."""
    inodes = listening(port)
    if not inodes:
        return Unrecognised.NOT_LISTENING
    return chosen(list(holders(inodes, processes)), root, processes)


def listening(port: int) -> frozenset[int]:
    """Inodes of the listeners on that port, of either family, in our network namespace."""
    with Netlink(SOCK_DIAG) as diag:
        found = sockets.listed(diag, 1 << sockets.LISTEN)
        return frozenset(each.inode for each in found if each.local.port == port)


def holders(inodes: frozenset[int], processes: Path = PROCESSES) -> Iterator[int]:
    """Processes of our network namespace that have one of these sockets."""
    # The thread's: the main one may be inside a pod for a moment.
    here = os.stat(processes / "thread-self" / "ns" / "net").st_ino
    names = {f"socket:[{inode}]" for inode in inodes}
    left = DESCRIPTORS_MAX
    for pid in sorted(int(name) for name in os.listdir(processes) if name.isdigit()):
        folder = processes / str(pid)
        try:
            if os.stat(folder / "ns" / "net").st_ino != here:
                continue
            descriptors = os.listdir(folder / "fd")
        except OSError:
            continue  # gone, or not ours to see
        for descriptor in descriptors[:left]:
            try:
                if os.readlink(folder / "fd" / descriptor) in names:
                    yield pid
                    break
            except OSError:
                continue  # closed meanwhile
        left = max(left - len(descriptors), 0)


def chosen(pids: list[int], root: Path, processes: Path = PROCESSES) -> Kubelet | Unrecognised:
    """The one kubelet among the processes that have a listener on its port.

    A pod on the host's network may listen on another address of that port: it does not count.
    """
    if not pids:
        return Unrecognised.NO_PROCESS
    found: dict[Path, int] = {}
    lost = False
    for pid in pids:
        try:
            directory = directory_of(pid, root, processes)
        except OSError:
            continue  # it has ended
        if directory is None:
            lost = True
        else:
            found.setdefault(directory, pid)
    hosts = {path: pid for path, pid in found.items() if not place.is_of_pod(path, root)}
    if lost:
        return Unrecognised.NO_CGROUP
    if not hosts:
        return Unrecognised.IN_POD if found else Unrecognised.NOT_LISTENING
    if len(hosts) > 1:
        return Unrecognised.SEVERAL
    ((directory, pid),) = hosts.items()
    reason = place.unfit(directory, root)
    if reason is not None:
        return reason
    return Kubelet(pid, directory, sharers(pid, directory, processes))


def sharers(pid: int, directory: Path, processes: Path = PROCESSES) -> tuple[str, ...]:
    """Names of those in its cgroup and its network namespace that are no children of it."""
    own = cgroups.descendants(pid, processes)
    here = os.stat(processes / str(pid) / "ns" / "net").st_ino
    names = set()
    for other in cgroups.members(directory) - own:
        folder = processes / str(other)
        try:
            if os.stat(folder / "ns" / "net").st_ino == here:
                names.add((folder / "comm").read_text(errors="replace").strip())
        except OSError:
            continue
    return tuple(sorted(names)[:SHARERS_MAX])
