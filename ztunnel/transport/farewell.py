"""The end of a connection whose other end was reset: everything that came before it, then a reset.

A reset throws away what the kernel has not delivered yet. TCP without a proxy delivers what arrived
before a reset, so the last bytes are waited for: written, acknowledged, and only then cut off.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Final

from ztunnel.loop.countdown import Countdown
from ztunnel.loop.reactor import ENDED, WATCH_BOTH, WRITABLE, Reactor
from ztunnel.tenants.account import UNCOUNTED, Account
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.sockets import Pieces, reset, send_pieces

# Longest wait for an app that reads slowly, or not at all.
FAREWELL_S: Final = 10.0
# Between two looks at what the other kernel has acknowledged; nothing reports that.
LOOK_S: Final = 0.01
# The last bytes of an app that was reset: when fewer go on in FAREWELL_S, the rest is dropped.
REST_BYTES_LEAST: Final = 65536
_NOTHING: Final = bytes(4)


def part(
    reactor: Reactor,
    sock: socket.socket,
    pending: Pieces | None = None,
    account: Account = UNCOUNTED,
) -> None:
    """Deliver `pending` and what the socket still holds, then reset it. Takes the socket over.

    Nothing is delivered on an account that is tight, or has as many farewells as it may."""
    looks = reactor.shared_countdown(LOOK_S, Farewell.on_due)
    nothing = not pending and not unacknowledged_bytes(sock)
    if nothing or account.tight or not account.farewells.take(account.tenant):
        reset(reactor, sock)
        return
    farewell = Farewell(reactor, looks, sock, pending or deque(), account)
    reactor.watch(sock.fileno(), farewell, WATCH_BOTH)
    looks.start(farewell)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Bytes that were sent and that the other kernel has not acknowledged; 0 for a dead socket."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _NOTHING))
    except OSError:
        return 0
    return int(count)


class Farewell:
    """One socket, until its other end has everything."""

    __slots__ = ("_account", "_due_s", "_held", "_looks", "_pending", "_reactor", "_sock")

    def __init__(
        self,
        reactor: Reactor,
        looks: Countdown,
        sock: socket.socket,
        pending: Pieces,
        account: Account,
    ) -> None:
        self._reactor = reactor
        self._looks = looks
        self._sock = sock
        self._pending = pending
        self._account = account
        self._held = sum([len(piece) for piece in pending])
        account.add(self._held)
        self._due_s = reactor.now_s + FAREWELL_S

    @property
    def payer(self) -> Tenancy:
        return self._account.tenant

    def on_ready(self, events: int) -> None:
        if events & ENDED:
            self._end()  # the other end has left, or has been reset by itself
        elif events & WRITABLE:
            self._write()

    def _write(self) -> None:
        try:
            send_pieces(self._sock, self._pending)
        except OSError:
            self._end()

    def on_due(self) -> None:
        delivered = not self._pending and not unacknowledged_bytes(self._sock)
        if delivered or self._reactor.now_s >= self._due_s:
            self._end()
        else:
            self._looks.start(self)

    def on_bug(self) -> None:
        self._end()

    def _end(self) -> None:
        self._looks.stop(self)
        self._pending.clear()
        held, self._held = self._held, 0
        self._account.give(held)
        self._account.farewells.give(self._account.tenant)
        reset(self._reactor, self._sock)


class Rest:
    """The last bytes of an app that was reset, as long as the peer takes them. A peer that takes
    nothing must not keep what nobody is behind any more."""

    __slots__ = ("_abort", "_end", "_looks", "_moved", "_seen_bytes")

    def __init__(
        self,
        reactor: Reactor,
        moved: Callable[[], tuple[int, int]],
        abort: Callable[[RelayEnd], None],
        end: RelayEnd,
    ) -> None:
        """`moved` are the bytes that went on, in both directions. `end` is the reason to abort."""
        self._moved = moved
        self._abort = abort
        self._end = end
        self._looks = reactor.shared_countdown(FAREWELL_S, Rest.on_due)
        self._look()

    def _look(self) -> None:
        self._seen_bytes = sum(self._moved())
        self._looks.start(self)

    def on_due(self) -> None:
        if sum(self._moved()) - self._seen_bytes < REST_BYTES_LEAST:
            self._abort(self._end)
        else:
            self._look()

    def on_bug(self) -> None:
        self._abort(RelayEnd.INTERNAL_ERROR)

    def over(self) -> None:
        self._looks.stop(self)
