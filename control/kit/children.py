"""The end of a child process for which asyncio waits."""

from __future__ import annotations

import os
import signal
from typing import Protocol


class Child(Protocol):
    """As asyncio.subprocess.Process and subprocess.Popen."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...


def kill_child(child: Child) -> None:
    """End it at once; nothing happens if it has ended.

    `Process.kill()` would ask for the exit code first. If the child has just ended, that takes the
    code away from the thread that waits for it, which then warns of an unknown child and says 255.
    """
    if child.returncode is not None:
        return
    try:
        handle = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return
    try:
        # The pid may be another process's by now: that one is no child of ours.
        os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except (ChildProcessError, ProcessLookupError):
        return
    finally:
        os.close(handle)
