"""Starts the first worker processes: copies of this one, made while it is young.

By then all is loaded that a worker and the supervisor both need, so it is loaded once; there is no
key yet that a copy should not have, and no thread whose locks it would keep for ever. Light to
import: a node waits for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Copy(NamedTuple):
    """A worker process, and our end of its pipe."""

    pid: int
    pipe: socket.socket


def fork(run: Callable[[int], int]) -> Copy:
    """Copy this process, which has one thread; `run` gets the copy's end of the pipe, and says its
    exit code. OSError: it cannot be started."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        with theirs:
            pid = os.fork()
            if pid == 0:
                _live(run, theirs.fileno(), parent)
    except BaseException:
        ours.close()
        raise
    return Copy(pid, ours)


def _live(run: Callable[[int], int], descriptor: int, parent: int) -> NoReturn:
    """The whole life of a copy: nothing of what its maker was about to do happens in it."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which lets them drain
        _end_with(parent)
        _keep_only(descriptor)
        code = run(descriptor)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)  # it has ended before it was asked for


def _keep_only(descriptor: int) -> None:
    """Close all but what a program would get: its end of the pipe, and where it may write."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != descriptor:
            with suppress(OSError):  # that of the listing is closed already
                os.close(number)
