"""File descriptors: as many as a process may have, and those that come beside bytes (SCM_RIGHTS),
of which none is lost.

`socket.recv_fds` of Python 3.11 passes over its flags: what it receives would stay open in programs
that we start.
"""

from __future__ import annotations

import array
import os
import resource
import socket
from collections.abc import Iterable

from control.kit.errors import WireError

_INT_BYTES = array.array("i").itemsize


def raise_limit() -> None:
    """Let this process have as many as its host allows: by default many hosts give 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def receive_message(
    sock: socket.socket, bytes_max: int, descriptors_max: int
) -> tuple[bytes, tuple[int, ...]]:
    """One `recvmsg`: its bytes and its descriptors, which belong to the caller from now on.

    WireError: the message or its descriptors were cut short; those that came are closed.
    OSError and BlockingIOError as the socket raises them.
    """
    space = socket.CMSG_SPACE(descriptors_max * _INT_BYTES)
    data, ancillary, flags, _ = sock.recvmsg(bytes_max, space, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) // _INT_BYTES * _INT_BYTES])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(found)
        raise WireError("a message was cut short, or its descriptors were")
    return data, tuple(found)


def close_all(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        os.close(each)
