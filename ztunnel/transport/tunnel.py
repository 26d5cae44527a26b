"""One TLS connection between two ztunnels, and the CONNECT streams in it.

It joins a socket, `TlsConnection` and `Session`, and hands each event to the stream's owner; what
leaves is the business of `Outgoing`. Decisions about who may connect where are those of its user
and of the streams' owners.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from control.model.identity import SpiffeId
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    Event,
    GoAwayReceived,
    PeerSettingsChanged,
    PingAcknowledged,
    RequestReceived,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import ENDED, READABLE, WATCH_BOTH, WRITABLE, Reactor
from ztunnel.refusals import Reason
from ztunnel.tenants.account import UNCOUNTED, Account
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.congestion import near
from ztunnel.transport.ends import RelayEnd, StreamOwner, TunnelEnd
from ztunnel.transport.incoming import Incoming
from ztunnel.transport.keepalive import PING_TIMEOUT_S, Keepalive, Pings, configure
from ztunnel.transport.mixture import MIXED_WINDOW_BYTES
from ztunnel.transport.outgoing import Outgoing
from ztunnel.transport.pace import NOTED_S
from ztunnel.transport.scratch import FLIGHT_BYTES, FROM_SOCKET_VIEW, READ_BYTES_MAX
from ztunnel.transport.tls import TlsClosed, TlsConnection, TlsError

_PING: Final = b"tulle-ka"
_PING_OF_DRAIN: Final = b"tulle-dr"
_LOST: Final = {TunnelEnd.POD_DELETED: RelayEnd.POD_DELETED, TunnelEnd.DRAINED: RelayEnd.DRAINED}


class TunnelUser(Protocol):
    """The side that opened or accepted a tunnel: the pool, or an inbound tunnel."""

    def tunnel_opened(self, tunnel: Tunnel, peer: SpiffeId) -> None:
        """The TLS handshake is done and the peer is verified; streams may be opened."""

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None: ...

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        """A stream ended, or the peer allows more of them."""

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        """New streams are not to be opened in it."""

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        """Called once, after every stream's owner has been told."""


class Tunnel(Incoming):
    __slots__ = (
        "_drain_requested",
        "_ended_hint",
        "_later",
        "_owned",
        "_sock",
        "_timers",
        "_user",
        "account",
        "detail",
        "end",
        "handshake_s",
        "peer",
        "pings",
        "refusal",
        "retired",
        "tenant",
    )

    def __init__(
        self,
        reactor: Reactor,
        timers: Keepalive,
        sock: socket.socket,
        tls: TlsConnection,
        session: Session,
        user: TunnelUser,
    ) -> None:
        super().__init__(reactor, tls, session)
        self._timers = timers
        self._sock = sock
        self._user = user
        self.account = UNCOUNTED  # for bytes that wait here
        self.out = Outgoing(reactor, sock, tls, session, self)
        self._ended_hint = False
        self._drain_requested = False
        self.pings = Pings(reactor)
        self.retired = False
        # Streams with an owner. The session forgets a stream when both sides have ended it, or when
        # the connection breaks; its owner may still hold bytes for the app, or must hear of it.
        self._owned: dict[int, Stream] = {}
        self.peer: SpiffeId | None = None
        self.end: TunnelEnd | None = None
        self.detail = ""
        self.refusal: Reason | None = None  # by TLS, or by whoever dismissed it
        self.tenant: Tenancy | None = None  # the one it is read for; None waits for nobody
        self._later = False  # it is not read before `on_later`
        self.handshake_s = 0.0  # time that the handshake took here

    def start(self) -> None:
        """Begin the handshake."""
        self._reactor.watch(self._sock.fileno(), self, WATCH_BOTH)
        configure(self._sock)
        self._timers.handshake.start(self)
        try:
            self._handshake()
        except TlsError as exc:
            self.broken(exc)

    # -- reading ---------------------------------------------------------------------------------

    def on_ready(self, events: int) -> None:
        if events & ENDED:
            self._ended_hint = True
        if events & WRITABLE and self.out.unsent:
            self.out.touch()
        if events & (READABLE | ENDED):
            self._readable = True
            self._read()

    def on_again(self) -> None:
        if self._readable:
            self._read()

    def _read(self) -> None:
        """Read once in a turn, as much as TLS and the apps can take at a time."""
        if self.closed or self._later:
            return
        payer = self.payer
        owes = self.tenant and payer.not_before_s > self._reactor.now_s
        if owes and not self._timers.has_called(self):
            self._later = True
            self._timers.later(self, payer.not_before_s)
            return
        if self.account.tenant.tight:
            self._read_when_taken()
            return
        if self.peer is not None:
            self._timers.moved_s = self._reactor.now_s
            if payer is not self._reactor.payer:
                self._reactor.meet(payer)
        elif not self._timers.may_handshake(self):
            self._later = True
            return
        began_s = self._reactor.clock()
        count = self._read_now()
        took_s = self._reactor.clock() - began_s
        if took_s > NOTED_S or self._pace.read_bytes < READ_BYTES_MAX:
            self._pace.took(took_s, count, self._reactor.crowded, self._reactor.slice_s)

    @property
    def payer(self) -> Tenancy:
        return self.tenant or self.account.tenant

    @property
    def fresh(self) -> bool:
        return not self._full  # a handshake, or the rest of something that has an end

    def _read_now(self) -> int:
        """Returns the bytes that came from the socket."""
        try:
            if self._rest or self._undone or self._tls.waiting:
                self._reactor.again(self)
                self._deliver()  # what came with an earlier read, before more is read
            else:
                return self._read_socket()
        except TlsClosed:
            self.close(TunnelEnd.CLOSED)
        except TlsError as exc:
            self.broken(exc)
        return 0

    def _read_socket(self) -> int:
        now_s = self._reactor.now_s
        read_bytes = FLIGHT_BYTES if self.peer is None else self._pace.read_bytes
        try:
            count = self._sock.recv_into(FROM_SOCKET_VIEW, read_bytes)
        except BlockingIOError:
            self._readable = self._full = False
            return 0
        except OSError as exc:
            self.broken(exc)
            return 0
        if not count:
            self.close(TunnelEnd.CUT if self._owned else TunnelEnd.CLOSED)
            return 0
        self._full = count == read_bytes
        if not self._full and not self._ended_hint:
            self._readable = False
        else:
            self._reactor.again(self)
        self._tls.feed(FROM_SOCKET_VIEW[:count])
        if self.peer is None:
            self._readable = self._handshake() or self._readable
            self._reactor.again(self)  # what came with it is at the cost of the peer
            return count
        self._deliver()
        if self._tls.silent and not self._pace.silent(self._tls.take_silent(), now_s):
            self.dismiss(Reason.SILENT_RECORDS, "")
        if self._mixture.read(count, now_s):
            self._use_windows()
        return count

    def _read_when_taken(self) -> None:
        """Leave the peer's bytes in its own hands until more of those that wait have been taken."""
        if self._ended_hint:
            self.close(TunnelEnd.CUT)  # nobody would tell us, and its bytes would wait for ever
            return
        self._later = True
        self._timers.later(self, self._reactor.now_s)

    def _use_windows(self) -> None:
        window_bytes = self.session.stream_window_bytes
        if self._mixture.mixed and near(self._sock):
            window_bytes = min(window_bytes, MIXED_WINDOW_BYTES)
        self.session.use_windows(window_bytes)

    def _handshake(self) -> bool:
        began_s = self._reactor.clock()
        try:
            peer = self._tls.handshake()
        finally:
            self.out.send(self._tls.take())  # an alert too
            self.handshake_s += self._reactor.clock() - began_s
        if peer is None or self.closed:
            return False
        self.peer = peer
        self._pace.begin(self._reactor.crowded)
        self._timers.handshake.stop(self)
        self._timers.ping.start(self)
        self.out.open()
        self.session.start()
        self.out.touch()
        self._user.tunnel_opened(self, peer)
        return not self.closed

    def _about_tunnel(self, event: Event) -> None:
        if isinstance(event, PeerSettingsChanged):
            self._user.tunnel_freed(self)
        elif isinstance(event, PingAcknowledged):
            if event.payload == _PING:  # an answer to something else proves nothing
                self.pings.answered()
            elif event.payload == _PING_OF_DRAIN:
                self.session.finish_goaway()
                self._close_when_drained()
        elif isinstance(event, GoAwayReceived):
            self._user.tunnel_draining(self)
            self._close_when_drained()
        elif isinstance(event, ConnectionFailed):
            self.close(TunnelEnd.PROTOCOL, event.reason)

    def _hand_request(self, event: RequestReceived) -> None:
        stream = event.stream
        try:
            self._user.tunnel_requested(self, event)
        except Exception:  # the reactor's boundary, drawn around one stream instead of the tunnel
            if stream.owner is not None:
                self._reactor.caught(stream.owner)
            else:
                self._reactor.report_bug(self)
                self.session.reset(stream, ErrorCode.INTERNAL_ERROR)

    # -- streams ---------------------------------------------------------------------------------

    def adopt(self, stream: Stream, owner: StreamOwner) -> None:
        stream.owner = owner
        self._owned[stream.id] = stream

    @property
    def streams(self) -> int:
        return len(self._owned)

    def touch(self) -> None:
        """The session may have new output: it leaves at the end of the turn."""
        self.out.touch()

    # -- keeping alive, draining, closing --------------------------------------------------------

    def on_handshake_due(self) -> None:
        self.close(TunnelEnd.HANDSHAKE_TIMEOUT)

    def on_later(self) -> None:
        self._later = False
        self.account.look()
        self._reactor.again(self)  # in a turn, where its time is measured

    def on_ping_due(self) -> None:
        if self.pings.silent_s >= PING_TIMEOUT_S and not self._later:
            self.close(TunnelEnd.PING_TIMEOUT)
            return
        self.probe()
        self._timers.ping.start(self)

    def probe(self) -> None:
        """Ask the peer for a sign of life, unless a PING is under way."""
        if self.peer is not None and not self.closed and self.pings.ask():
            self.session.ping(_PING)
            self.touch()

    def retire(self) -> None:
        """Take no new streams, and close after the last one: the peer is in doubt."""
        self.retired = True
        self._user.tunnel_draining(self)
        self.drain()
        if not self._owned:
            self.close(TunnelEnd.RETIRED)

    def drain(self) -> None:
        """Refuse new streams, let open ones finish, then close."""
        if self._drain_requested or self.closed:
            return
        self._drain_requested = True
        if self.peer is None:
            self.close(TunnelEnd.DRAINED)
            return
        self.session.goaway(ErrorCode.NO_ERROR, drain=True)
        # Its answer says that the peer has seen the GOAWAY: later streams may be refused.
        self.session.ping(_PING_OF_DRAIN)
        self.touch()

    def stream_over(self, stream: Stream) -> None:
        """The stream's owner has let go of it."""
        stream.owner = None
        self._owned.pop(stream.id, None)
        if self.closed:
            return
        self._user.tunnel_freed(self)
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        session = self.session
        if session.idle and (session.refusing or session.goaway_received):
            self.close(TunnelEnd.DRAINED)

    def close(self, end: TunnelEnd, detail: str = "") -> None:
        if self.closed:
            return
        if end in (TunnelEnd.CUT, TunnelEnd.CLOSED) and self._never_answered:
            end = TunnelEnd.REJECTED
        self.closed = True
        self.end, self.detail = end, detail
        self._timers.forget(self)
        owners = [stream.owner for stream in self._owned.values()]
        if self.peer is not None and end not in (TunnelEnd.CUT, TunnelEnd.REJECTED):
            self.out.say_goodbye()
        self._reactor.discard(self._sock)
        self.out.close()
        lost = _LOST.get(end, RelayEnd.TUNNEL_LOST)
        self._user.tunnel_draining(self)  # an owner may ask for another tunnel at once
        for owner in owners:
            if owner is not None:
                self._reactor.serve(owner, owner.on_tunnel_lost, lost)
        self._user.tunnel_closed(self, end, detail)

    def pay_with(self, account: Account) -> None:
        """Count bytes that wait here on this account; no stream is open yet."""
        self.account = account
        self.out.pay_with(account)

    def make_room(self) -> None:
        """End an idle one: its place is needed, and the next connection opens another."""
        if not self._owned:
            self.close(TunnelEnd.IDLE)

    def dismiss(self, reason: Reason, detail: str) -> None:
        """End it at once: the peer takes more than its share, or gives nothing but trouble."""
        if self.closed:
            return
        self.refusal = reason
        if self.peer is not None:
            self.session.goaway(ErrorCode.ENHANCE_YOUR_CALM, drain=False)
        self.close(TunnelEnd.DISMISSED, detail)

    @property
    def _never_answered(self) -> bool:
        """True for a client whose certificate the server may have refused: in TLS 1.3 the client
        is done before the server has looked at it, and a reset may overtake the server's alert."""
        return self.peer is not None and not self.session.peer_ready

    def broken(self, why: TlsError | OSError) -> None:
        if isinstance(why, TlsError):
            self.refusal = why.refusal
            self.close(TunnelEnd.TLS, str(why))
        else:
            self.close(TunnelEnd.CUT, why.strerror or "")

    def on_bug(self) -> None:
        self.close(TunnelEnd.INTERNAL_ERROR)
