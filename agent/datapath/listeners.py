"""Listeners of a foreign ztunnel (Istio's), which does not hand them over: copies them."""

import ctypes
import os
from pathlib import Path

from agent.datapath import sockets
from agent.datapath.errors import DatapathError

OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT = 15001, 15006, 15008
ZTUNNEL_PORTS = (OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT)

_PIDFD_GETFD = 438  # the same number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


def copied(pid: int, netns_fd: int, ports: tuple[int, ...] = ZTUNNEL_PORTS) -> dict[int, int]:
    """Descriptors of copies of the process's listeners in that namespace, by port.

    The caller closes them. A port that is missing has no listener yet: ask again later.
    """
    with sockets.diagnosis(netns_fd) as diag:
        found = sockets.listed(diag, 1 << sockets.LISTEN)
        listening = [each for each in found if each.local.port in ports]
    theirs = _socket_fds(pid)
    copies: dict[int, int] = {}
    pidfd = os.pidfd_open(pid)
    try:
        for listener in listening:
            port = listener.local.port
            if port in copies or listener.inode not in theirs:
                continue
            copy = _libc.syscall(_PIDFD_GETFD, pidfd, theirs[listener.inode], 0)
            if copy < 0:
                for opened in copies.values():
                    os.close(opened)
                raise DatapathError(f"copy a listener of process {pid}", ctypes.get_errno())
            copies[port] = copy
    finally:
        os.close(pidfd)
    return copies


def _socket_fds(pid: int) -> dict[int, int]:
    """Socket inode → descriptor number in that process."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found[int(target[8:-1])] = int(entry.name)
    return found
