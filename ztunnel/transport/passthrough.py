"""Moves bytes between two sockets: past the mesh, and plaintext that comes in; decides nothing.

Each direction ends by itself (FIN for FIN), and a reset of either side resets the other. A side is
read only while the other one takes what was read, so one read is held at most.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from ztunnel.loop.reactor import ENDED, READABLE, WATCH_BOTH, WRITABLE, Reactor
from ztunnel.tenants.account import UNCOUNTED, Account
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.farewell import Rest, part
from ztunnel.transport.scratch import (
    CHUNK_BYTES_FIRST,
    CHUNK_GROWTH,
    FROM_SOCKET_VIEW,
    READ_BYTES_MAX,
    TURN_BYTES_MAX,
)
from ztunnel.transport.sockets import reset

_ERROR: Final = select.EPOLLERR
# A read while the account is tight.
TIGHT_BYTES: Final = 4096


class SocketRelay:
    """An app's socket ↔ another socket."""

    __slots__ = ("_done", "_over", "_reactor", "_rest", "_sides", "account")

    def __init__(
        self,
        reactor: Reactor,
        first: socket.socket,
        second: socket.socket,
        done: Callable[[RelayEnd], None],
        account: Account = UNCOUNTED,
    ) -> None:
        self.account = account
        self._reactor = reactor
        self._done = done
        self._over = False
        self._rest: Rest | None = None  # the last bytes of a side that was reset
        self._sides = (_Side(reactor, first, self), _Side(reactor, second, self))
        self._sides[0].other, self._sides[1].other = self._sides[1], self._sides[0]

    def start(self) -> None:
        first, second = self._sides
        self._reactor.watch(first.sock.fileno(), first, WATCH_BOTH)
        self._reactor.watch(second.sock.fileno(), second, WATCH_BOTH)

    def moved_bytes(self) -> tuple[int, int]:
        """Bytes written to the second socket, and to the first."""
        return self._sides[1].written_bytes, self._sides[0].written_bytes

    def abort(self, reason: RelayEnd) -> None:
        if self._over:
            return
        for side in self._sides:
            reset(self._reactor, side.sock)
        self._end(reason)

    def on_bug(self) -> None:
        self.abort(RelayEnd.INTERNAL_ERROR)

    def side_over(self) -> None:
        if all(side.read_done and side.write_done for side in self._sides):
            for side in self._sides:
                self._reactor.discard(side.sock)
            self._end(RelayEnd.FINISHED)

    def side_failed(self, side: _Side) -> None:
        """A side was reset and has been read to its end: the other gets the rest, then a reset."""
        reset(self._reactor, side.sock)
        pending = side.other.drop_pending()
        part(self._reactor, side.other.sock, deque([pending]) if pending else None, self.account)
        self._end(RelayEnd.APP_RESET if side is self._sides[0] else RelayEnd.PEER_RESET)

    def await_rest(self) -> None:
        if self._rest is None:
            end = RelayEnd.APP_RESET if self._sides[0].failed else RelayEnd.PEER_RESET
            self._rest = Rest(self._reactor, self.moved_bytes, self.abort, end)

    def _end(self, reason: RelayEnd) -> None:
        if self._over:
            return
        self._over = True
        if self._rest is not None:
            self._rest.over()
        for side in self._sides:
            side.read_done = side.write_done = True
            side.drop_pending()
        self._done(reason)


class _Side:
    __slots__ = (
        "_chunk_bytes",
        "_ended_hint",
        "_reactor",
        "_relay",
        "failed",
        "other",
        "pending",
        "read_done",
        "readable",
        "sock",
        "write_done",
        "written_bytes",
    )

    other: _Side

    def __init__(self, reactor: Reactor, sock: socket.socket, relay: SocketRelay) -> None:
        self._reactor = reactor
        self._relay = relay
        self.sock = sock
        self.pending: bytes | memoryview = b""  # from the other side; one read at most
        self.readable = False
        self.read_done = False
        self.write_done = False
        self.written_bytes = 0
        self._ended_hint = False
        self.failed = False  # reset; what it said before is still to be read
        self._chunk_bytes = CHUNK_BYTES_FIRST

    def on_ready(self, events: int) -> None:
        if events & _ERROR:
            self._fail()
            return
        if events & ENDED:
            self._ended_hint = True
        if events & WRITABLE and self.pending:
            self._write_pending()
        if events & (READABLE | ENDED) and not self.read_done:
            self.readable = True
            self.read()

    @property
    def payer(self) -> Tenancy:
        return self._relay.account.tenant

    def on_again(self) -> None:
        if self.readable and not self.read_done:
            self.read()

    def on_bug(self) -> None:
        self._relay.on_bug()

    def read(self) -> None:
        """Read until the socket is empty, the other one is full, or the turn's share is used up."""
        budget = TURN_BYTES_MAX
        if self._relay.account.tight:
            self._chunk_bytes = TIGHT_BYTES
        while budget > 0:
            if self.other.pending or self.other.failed:
                return  # it calls when it has room, or takes nothing any more
            size = self._chunk_bytes
            try:
                count = self.sock.recv_into(FROM_SOCKET_VIEW, size)
            except BlockingIOError:
                self.readable = False
                return
            except OSError:
                self._relay.side_failed(self)
                return
            if not count:
                if self.failed:
                    self._relay.side_failed(self)
                    return
                self.read_done = True
                self.other.end()
                return
            self.other.write(FROM_SOCKET_VIEW[:count])
            if count < size:
                if not self._ended_hint:
                    self.readable = False
                    return
            elif size < READ_BYTES_MAX:
                self._chunk_bytes = min(size * CHUNK_GROWTH, READ_BYTES_MAX)
            budget -= count
        self._reactor.again(self)

    def _fail(self) -> None:
        """Reset. Nothing can be written here any more; what it said before goes to the other side
        first, then the reset."""
        self.failed = True
        self.drop_pending()
        if self.read_done or self.other.failed:
            self._relay.side_failed(self)
            return
        self.readable = self._ended_hint = True
        self._relay.await_rest()
        self._reactor.again(self)

    def write(self, data: memoryview) -> None:
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._fail()
            return
        self.written_bytes += sent
        if sent < len(data):
            self.pending = bytes(data[sent:])
            self._relay.account.add(len(self.pending))

    def drop_pending(self) -> bytes | memoryview:
        pending, self.pending = self.pending, b""
        if pending:
            self._relay.account.give(len(pending))
        return pending

    def _write_pending(self) -> None:
        try:
            sent = self.sock.send(self.pending)
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self.written_bytes += sent
        self.pending = memoryview(self.pending)[sent:]
        self._relay.account.give(sent)
        if not self.pending:
            if self.other.read_done:
                self.end()
            elif self.other.readable:
                self._reactor.again(self.other)

    def end(self) -> None:
        """Send a FIN after what is pending: the other side has nothing more to say."""
        if self.pending or self.write_done:
            return
        self.write_done = True
        if not self.read_done:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._fail()
                return
        self._relay.side_over()
