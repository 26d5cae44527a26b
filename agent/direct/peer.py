"""One ztunnel at direct.sock: whole lines in, a bounded buffer out; does not read the lines."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import ClassVar

from control.kit.errors import PeerError, WireError
from control.wire.direct import LINE_BYTES_MAX

# A replay of a full flow table (16,384 flows of some 300 bytes), and the events meanwhile.
OUT_BYTES_MAX = 8 * 1024 * 1024
# One turn of the loop: some 2,500 verdicts, 10 ms. The rest waits for the next turn.
READ_BYTES_MAX = 256 * 1024
_CHUNK_BYTES = 64 * 1024


class PeerGone(PeerError):
    reason: ClassVar[str] = "closed"


class PeerSlow(PeerError):
    reason: ClassVar[str] = "slow_reader"


class PeerRefused(PeerError):
    reason: ClassVar[str] = "refused"


def credentials(sock: socket.socket) -> tuple[int, int]:
    """(pid, user id) of the process at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _ = struct.unpack("=iII", raw)
    return pid, user


def check_credentials(pid: int, user: int) -> None:
    """Admit root or our own user, and a process that we can see, as ZDS does."""
    if user not in (0, os.getuid()):
        raise PeerRefused(f"user {user} may not be a ztunnel")
    if pid <= 0:
        raise PeerRefused("its process cannot be seen from here (another pid namespace)")


class DirectPeer:
    def __init__(self, number: int, pid: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.number = number
        self.pid = pid
        self._sock = sock
        self._in = bytearray()
        self._out = bytearray()
        self._writing = False

    def start(self, readable: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(self._sock, readable)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._sock.close()

    def lines(self) -> Iterator[bytes]:
        """The lines that can be read now, up to a bound; PeerError at the end of the connection."""
        left = READ_BYTES_MAX
        while left > 0:
            try:
                data = self._sock.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError as exc:
                raise PeerGone(f"receive: {exc.strerror}") from exc
            if not data:
                raise PeerGone("closed by the ztunnel")
            left -= len(data)
            yield from self._split(data)

    def _split(self, data: bytes) -> Iterator[bytes]:
        self._in += data
        *whole, rest = bytes(self._in).split(b"\n")
        self._in[:] = rest
        for line in whole:
            if len(line) > LINE_BYTES_MAX:
                raise WireError(f"a line of {len(line)} bytes")
            yield line
        if len(rest) > LINE_BYTES_MAX:
            raise WireError("a line without an end")

    def is_drained(self) -> bool:
        """True when nothing is left to read, not even the end of the connection."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def send(self, line: bytes) -> None:
        """Send at once as much as the socket takes; PeerError when the peer does not read."""
        if len(self._out) + len(line) > OUT_BYTES_MAX:
            raise PeerSlow(f"more than {OUT_BYTES_MAX} bytes are unread")
        self._out += line
        if not self._writing:
            self._write()

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise PeerGone(f"send: {exc.strerror}") from exc
        del self._out[:sent]
        self._expect_room(bool(self._out))

    def _expect_room(self, wanted: bool) -> None:
        if wanted is self._writing:
            return
        self._writing = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_writer(self._sock, self._writable)
        else:
            loop.remove_writer(self._sock)

    def _writable(self) -> None:
        try:
            self._write()
        except PeerGone:
            self._out.clear()  # reading finds the end, too, and reports it
            self._expect_room(False)
