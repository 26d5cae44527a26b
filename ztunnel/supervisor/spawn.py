"""Starts a worker process as a program of its own: one that takes the place of another.

A copy of this process (copies.py) would have its keys and, of its threads, their locks.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from ztunnel.supervisor.child import Forked


class Spawned(NamedTuple):
    """A worker process, and our end of its pipe."""

    process: Forked
    pipe: socket.socket


def worker_argv(descriptor: int) -> list[str]:
    """Command of a worker. `setpriv` makes the kernel end it with us; without it the closed pipe
    does."""
    command = [sys.executable, "-m", "ztunnel.worker", "--fd", str(descriptor)]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def spawn(argv: Callable[[int], list[str]] = worker_argv) -> Spawned:
    """Start one; OSError: it cannot be started."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            program = subprocess.Popen(
                argv(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the supervisor, which lets them drain
            )
    except BaseException:
        ours.close()
        raise
    return Spawned(Forked(program.pid, program), ours)
