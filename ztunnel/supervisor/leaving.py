"""The first part of a ztunnel's end: it serves on until nothing is open, or time is up.

Where another ztunnel has come the agent gives that one every new connection, and there is time for
the open ones. Where none has, one comes only after us, perhaps: we are still the one for new
connections, and leave soon. Policy is enforced as before in both cases.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path

# The last part of the time: nothing new is accepted. A client whose SYN meets nobody sends it again
# after 1 s and 3 s, to whoever comes next.
LAST_S = 5.0

# A successor is looked for this often.
LOOK_S = 0.5
_CREDENTIALS = struct.Struct("=iII")


class Leaving:
    """The workers that have nothing open, since they were told to leave."""

    def __init__(self, all_workers: Callable[[], Collection[int]]) -> None:
        self._all = all_workers
        self._idle: set[int] = set()
        self._changed = asyncio.Event()
        self.has_begun = False

    def heard(self, worker: int, *, idle: bool) -> None:
        if idle:
            self._idle.add(worker)
        else:
            self._idle.discard(worker)
        self._changed.set()

    def lost(self, worker: int) -> None:
        """It carries nothing now; its successor says for itself."""
        self._idle.discard(worker)

    async def idle(self, within_s: float) -> bool:
        """Wait until no worker has anything open; False: some still have, and the time is up."""
        try:
            async with asyncio.timeout(within_s):
                while not self._idle.issuperset(self._all()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


def successor(admin_socket: Path) -> int | None:
    """Process that has our place: a newer ztunnel takes over the admin socket. 0: one of another
    container; None: nobody has."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(admin_socket))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    pid = int(_CREDENTIALS.unpack(raw)[0])
    return None if pid == os.getpid() else pid


def shares_network(pid: int) -> bool:
    """True if it is in our network namespace, where it wants the same ports."""
    try:
        return os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net")
    except OSError:
        return False
