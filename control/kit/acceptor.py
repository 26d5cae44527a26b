"""Accepts connections on one listening socket: a few at a time, at the price of a system call each.

What is not wanted is let go here, before it costs a stream: so a source that connects without end
does not keep those who wait behind it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from control.kit.seats import Source, source_of

# Connections that wait to be accepted: a burst from one source must not cost another one's SYN.
BACKLOG: Final = 4096
ACCEPTS_AT_ONCE: Final = 64  # then the connections that are open have their turn
NO_DESCRIPTOR_S: Final = 0.2  # until the next try when there is none to be had

_RESET = struct.pack("ii", 1, 0)
UNIX = Source("unix", "unix")

Arrived = Callable[[socket.socket, Source], None]


class Acceptor:
    def __init__(self, listener: socket.socket, arrived: Arrived) -> None:
        """`arrived` takes over each connection, or lets it go."""
        self._listener = listener
        self._arrived = arrived
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        self._pause()
        if self._later is not None:
            self._later.cancel()
        self._listener.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it left before its turn
                continue
            except OSError:  # no descriptors, no memory: the queue would wake us without end
                self._pause()
                self._later = self._loop.call_later(NO_DESCRIPTOR_S, self._resume)
                return
            sock.setblocking(False)
            self._arrived(sock, source_of(str(peer[0])) if isinstance(peer, tuple) else UNIX)


def let_go(sock: socket.socket) -> None:
    """End a connection with a reset: it leaves no trace in our kernel's tables."""
    if sock.fileno() < 0:
        return
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


async def streams_over(
    sock: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that was accepted, as asyncio has it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
