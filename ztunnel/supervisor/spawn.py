"""Starts worker processes.

Light to import: the first ones start before the supervisor's own modules are loaded, which takes as
long as their start.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple


class Spawned(NamedTuple):
    """A worker process, and our end of its pipe."""

    process: asyncio.subprocess.Process
    pipe: socket.socket


def worker_argv(descriptor: int) -> list[str]:
    """Command of a worker. `setpriv` makes the kernel end it with us; without it the closed pipe
    does."""
    command = [sys.executable, "-m", "ztunnel.worker", "--fd", str(descriptor)]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


async def spawn(argv: Callable[[int], list[str]] = worker_argv) -> Spawned:
    """Start one; OSError: it cannot be started."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *argv(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the supervisor, which lets them drain
            )
    except BaseException:
        ours.close()
        raise
    return Spawned(process, ours)
