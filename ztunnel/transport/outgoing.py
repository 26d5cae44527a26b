"""Everything that leaves a tunnel, and the relays that wait for room in it.

The session gathers the output of a turn. `flush` writes it at the turn's end: one TLS write, one
send. A frame that fills records by itself goes out at once, from where it lies. Bytes that the
kernel does not take go first at the next flush.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.session import Session
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Resumable, Served
from ztunnel.tenants.account import UNCOUNTED, Account
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.congestion import unpace
from ztunnel.transport.ends import Queue
from ztunnel.transport.scratch import FRAME_HEAD_BYTES
from ztunnel.transport.tls import TlsConnection, TlsError

# A read of this size is encrypted from where it lies; smaller ones gather with those of others.
DIRECT_BYTES_MIN: Final = 64 * 1024 - FRAME_HEAD_BYTES
# Output that may wait in a tunnel for a peer that does not read, before the apps' sockets are left
# alone: one turn's largest write, and one more read on top of it.
OUTGOING_BYTES_MAX: Final = 256 * 1024
# More for connections that have never filled a read: small messages may gather this much in a turn
# that bulk has used up.
SMALL_BYTES_RESERVED: Final = 64 * 1024


class Breakable(Served, Protocol):
    @property
    def payer(self) -> Tenancy: ...

    def broken(self, why: TlsError | OSError) -> None:
        """Nothing can be sent any more."""


class Outgoing:
    __slots__ = (
        "_blocked_by_buffer",
        "_blocked_by_window",
        "_bulk_seen",
        "_held",
        "_open",
        "_owner",
        "_reactor",
        "_session",
        "_sock",
        "_tls",
        "account",
        "contended",
        "dirty",
        "unsent",
        "written_bytes",
    )

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        tls: TlsConnection,
        session: Session,
        owner: Breakable,
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._tls = tls
        self._session = session
        self.account = UNCOUNTED
        self._owner: Breakable | None = owner  # None from the tunnel's end on
        self._open = False
        self._bulk_seen = False
        self._blocked_by_buffer = Queue()
        self._blocked_by_window = Queue()
        self.unsent: memoryview | bytes = b""
        self._held = 0  # bytes of it, on the account of the owner
        self.written_bytes = 0  # by `write_large` since the last flush: part of the turn's share
        self.dirty = False
        self.contended = False  # relays wait: one with new data goes behind them

    def open(self) -> None:
        """The handshake is done: the session may be heard."""
        self._open = True

    def close(self) -> None:
        """The tunnel has ended: let go of it, and of the relays that wait."""
        self._owner = None
        self._blocked_by_buffer.clear()
        self._blocked_by_window.clear()
        self._account_for(0)

    def touch(self) -> None:
        """The session may have new output."""
        if not self.dirty:
            self.dirty = True
            self._reactor.flush_later(self)

    @property
    def payer(self) -> Tenancy | None:
        """The one whose output it is."""
        return None if self._owner is None else self._owner.payer

    # -- relays that wait ------------------------------------------------------------------------

    def wait_for_room(self, relay: Resumable, had_share: bool) -> None:
        """Resume the relay when the turn's output is with the kernel."""
        self.contended = True
        self._blocked_by_buffer.add(relay, had_share)

    def wait_for_window(self, relay: Resumable, had_share: bool) -> bool:
        """Resume the relay when the connection's window opens; False if that is not what keeps it.
        The stream's own window has its own event."""
        if self._session.send_window > 0:
            return False
        self.contended = True
        self._blocked_by_window.add(relay, had_share)
        return True

    def window_opened(self) -> None:
        self._blocked_by_window.resume(self._reactor)

    # -- writing ---------------------------------------------------------------------------------

    def flush(self) -> None:
        self.dirty = False
        self.written_bytes = 0
        if self._owner is None:
            return
        if (not self.unsent or self.send(b"")) and self._open:
            self._write()
        if not self.unsent and self._owner is not None:
            self.contended = bool(self._blocked_by_buffer or self._blocked_by_window)
            self._blocked_by_buffer.resume(self._reactor)

    def _write(self) -> None:
        """Send all of the turn's output with one TLS write."""
        if not self._session.outbound:
            return
        try:
            data = self._tls.write(self._session.take())
        except TlsError as exc:
            self._break(exc)
            return
        self.send(data)

    def write_large(self, frame: memoryview) -> None:
        """Send a frame that fills records by itself from where it lies, behind what waits already.
        That this ends the turn's gathering early costs less than copying it."""
        session = self._session
        if self.unsent or not self._open:
            session.outbound += frame
            return
        self._write()
        if self._owner is None:
            return
        if self.unsent:
            session.outbound += frame
            return
        self.written_bytes += len(frame)
        if not self._bulk_seen:
            self._bulk_seen = True
            unpace(self._sock)
        try:
            data = self._tls.write(frame)
        except TlsError as exc:
            self._break(exc)
            return
        self.send(data)

    def send(self, data: bytes) -> bool:
        """Send encrypted bytes; True if the kernel has taken everything."""
        if self.unsent:
            data = bytes(self.unsent) + data
        if not data:
            return True
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self.unsent = b""
            self._break(exc)
            return False
        self.unsent = memoryview(data)[sent:] if sent < len(data) else b""
        if self.unsent or self._held:
            self._account_for(len(self.unsent))
        return not self.unsent

    def pay_with(self, account: Account) -> None:
        held = self._held
        self._account_for(0)
        self.account = account
        self._account_for(held)

    def _account_for(self, count: int) -> None:
        if self._held != count:
            self.account.give(self._held)
            self.account.add(count)
            self._held = count

    def say_goodbye(self) -> None:
        """Best effort: the kernel takes it now or nobody hears it."""
        session = self._session
        try:
            if not session.goaway_sent:
                session.goaway(ErrorCode.NO_ERROR, drain=False)
            data = self._tls.write(session.take()) if session.outbound else b""
            data += self._tls.close()
            if not self.unsent:
                self._sock.send(data)
        except (TlsError, OSError):
            pass

    def _break(self, why: TlsError | OSError) -> None:
        if self._owner is not None:
            self._owner.broken(why)

    def on_bug(self) -> None:
        if self._owner is not None:
            self._owner.on_bug()
