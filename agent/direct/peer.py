"""One ztunnel at direct.sock: whole lines in, a bounded buffer out; knows no meaning."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import ClassVar

from control.kit.errors import PeerError, WireError
from control.wire.direct import LINE_BYTES_MAX

# A replay of a full flow table (16,384 of some 300 bytes), and what happens meanwhile.
OUT_BYTES_MAX = 8 * 1024 * 1024
# In one turn of the loop: some 2,500 verdicts, 10 ms. The rest waits for the next.
READ_BYTES_MAX = 256 * 1024
_CHUNK_BYTES = 64 * 1024


class PeerGone(PeerError):
    reason: ClassVar[str] = "closed"


class PeerSlow(PeerError):
    reason: ClassVar[str] = "slow_reader"


class PeerRefused(PeerError):
    reason: ClassVar[str] = "refused"


def credentials(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of whoever connected."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _ = struct.unpack("=iII", raw)
    return pid, user


def check_credentials(pid: int, user: int) -> None:
    """As ZDS does: root or our own user, and a process that we can name."""
    if user not in (0, os.getuid()):
        raise PeerRefused(f"user {user} may not be a ztunnel")
    if pid <= 0:
        raise PeerRefused("its process cannot be seen from here (another pid namespace)")


class Peer:
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
        """What can be read now, up to a bound. Ends by PeerError when the connection has."""
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
        """Nothing is left to read, its end included."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def send(self, line: bytes) -> None:
        """At once as far as the socket takes it; PeerError when it is not worth waiting for."""
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
            self._out.clear()  # the reader's side sees the end, and tells
            self._expect_room(False)
