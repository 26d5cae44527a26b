"""Socket operations that Python's own class lacks, or makes dearer than a connection may be."""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Final, cast

from ztunnel.loop.reactor import Reactor

# As plain numbers: the enums of `socket` cost as much to pass as a system call.
_NEW_SOCKET: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_IPPROTO_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_QUICKACK: Final = int(socket.TCP_QUICKACK)
_NO_LINGER: Final = struct.pack("ii", 1, 0)
# Pieces for one sendmsg. The kernel takes 1,024; this many are more than one read brings.
PIECES_MAX: Final = 64
_new_socket: Final = socket.SocketType


# Bytes that wait for a socket; a bytearray at the end grows with what comes.
Pieces = deque[bytes | bytearray | memoryview]
# Small messages gather up to this size: a piece for each would cost 50 times its bytes.
GATHERED_BYTES_MAX: Final = 64 * 1024


def bare_socket(family: int, descriptor: int | None = None) -> socket.socket:
    """Make a non-blocking TCP socket, or take over `descriptor`, which must be non-blocking.

    It lacks the files, warnings and enums of Python's own class, which cost a new connection
    some 2 µs.
    """
    return cast(socket.socket, _new_socket(family, _NEW_SOCKET, 0, descriptor))


def end_handshake(sock: socket.socket) -> None:
    """Send the ACK that a patient dial held back for the first bytes."""
    try:
        sock.setsockopt(_IPPROTO_TCP, _TCP_QUICKACK, 1)
    except OSError:
        pass  # gone: its owner will hear of it


def reset(reactor: Reactor, sock: socket.socket) -> None:
    """Close so that the other end sees a reset, not a finished answer."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass
    reactor.discard(sock)


def gather(pieces: Pieces, data: bytes | memoryview) -> None:
    """Copy `data` behind the pieces."""
    if pieces:
        last = pieces[-1]
        if isinstance(last, bytearray) and len(last) < GATHERED_BYTES_MAX:
            last += data
            return
    pieces.append(bytearray(data))


def send_pieces(sock: socket.socket, pieces: Pieces) -> int:
    """Send pieces as far as the kernel takes them, and take those off. Returns the bytes sent.

    Raises OSError when the connection has failed.
    """
    taken = 0
    while pieces:
        try:
            sent = sock.sendmsg([pieces[index] for index in range(min(len(pieces), PIECES_MAX))])
        except BlockingIOError:
            break
        taken += sent
        while sent:
            first = pieces[0]
            if sent < len(first):
                pieces[0] = memoryview(first)[sent:]
                break
            sent -= len(first)
            pieces.popleft()
    return taken
