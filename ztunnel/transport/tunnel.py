"""One TLS connection between two ztunnels, and the CONNECT streams in it.

It joins a socket, `TlsConnection` and `Session`, and hands each event to the stream's owner. All
output of a turn gathers in the session; `flush` writes it at the turn's end: one TLS write, one
send. It decides nothing about who may connect where: its user does, and the owners of streams do.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

from control.model.identity import SpiffeId
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    PeerSettingsChanged,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import (
    ENDED,
    READABLE,
    WATCH_BOTH,
    WRITABLE,
    Countdown,
    Reactor,
    Resumable,
)
from ztunnel.refusals import Reason
from ztunnel.transport.congestion import near, unpace
from ztunnel.transport.ends import Queue, RelayEnd, StreamOwner, TunnelEnd
from ztunnel.transport.mixture import MIXED_WINDOW_BYTES, SMALL_BYTES_MAX, Mixture
from ztunnel.transport.scratch import DECRYPTED_VIEW, FROM_SOCKET_VIEW, READ_BYTES_MAX
from ztunnel.transport.tls import TlsClosed, TlsConnection, TlsError

HANDSHAKE_S: Final = 10.0
# Steps of handshakes in one turn, at about 0.5 ms each: what open connections wait at most when
# many peers arrive at once.
HANDSHAKES_PER_TURN_MAX: Final = 8
PING_EVERY_S: Final = 10.0
PING_TIMEOUT_S: Final = 20.0
_PING: Final = b"tulle-ka"
_PING_OF_DRAIN: Final = b"tulle-dr"
# TCP's own probes, for a host that vanished: first after 180 s, each 180 s, nine times.
KEEPALIVE_S: Final = 180
KEEPALIVE_PROBES: Final = 9


class TunnelUser(Protocol):
    """The side that opened or accepted a tunnel: the pool, or an inbound tunnel."""

    def tunnel_opened(self, tunnel: Tunnel, peer: SpiffeId) -> None:
        """The TLS handshake is done and the peer is verified; streams may be opened."""

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None: ...

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        """A stream ended, or the peer allows more of them."""

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        """The peer accepts no new streams."""

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        """Called once, after every stream's owner has been told."""


class Keepalive:
    """The deadlines that all tunnels of a worker share, and its patience with handshakes."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._turn = -1
        self._steps = 0
        self.handshake: Countdown = reactor.countdown(HANDSHAKE_S, Tunnel.on_handshake_due)
        self.ping: Countdown = reactor.countdown(PING_EVERY_S, Tunnel.on_ping_due)

    def may_handshake(self) -> bool:
        """A step of a handshake costs a signature: only so many in one turn."""
        if self._turn != self._reactor.turns:
            self._turn, self._steps = self._reactor.turns, 0
        self._steps += 1
        return self._steps <= HANDSHAKES_PER_TURN_MAX


def configure(sock: socket.socket) -> None:
    """What every TCP connection of a tunnel gets."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


class Tunnel:
    __slots__ = (
        "_blocked_by_buffer",
        "_blocked_by_window",
        "_bulk_seen",
        "_drain_requested",
        "_ended_hint",
        "_mixture",
        "_owned",
        "_ping_sent_s",
        "_reactor",
        "_readable",
        "_sock",
        "_timers",
        "_tls",
        "_user",
        "closed",
        "contended",
        "detail",
        "dirty",
        "end",
        "peer",
        "refusal",
        "session",
        "unsent",
        "written_bytes",
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
        self._reactor = reactor
        self._timers = timers
        self._sock = sock
        self._tls = tls
        self.session = session
        self._user = user
        self.unsent: memoryview | bytes = b""
        self.written_bytes = 0  # by `write_large` since the last flush: part of the turn's share
        self._readable = False
        self._ended_hint = False
        self._drain_requested = False
        self._bulk_seen = False
        self._mixture = Mixture()
        self._ping_sent_s: float | None = None
        self._blocked_by_buffer = Queue()
        self._blocked_by_window = Queue()
        # Streams with an owner. The session forgets a stream when both sides have ended it or when
        # the connection breaks; its owner may still have bytes for the app, or must hear of it.
        self._owned: dict[int, Stream] = {}
        self.peer: SpiffeId | None = None
        self.dirty = False
        self.contended = False  # somebody waits: whoever has new data goes behind them
        self.closed = False
        self.end: TunnelEnd | None = None
        self.detail = ""
        self.refusal: Reason | None = None  # why TLS was refused

    def start(self) -> None:
        """Begin the handshake."""
        self._reactor.watch(self._sock.fileno(), self, WATCH_BOTH)
        configure(self._sock)
        self._timers.handshake.start(self)
        try:
            self._handshake()
        except TlsError as exc:
            self._tls_failed(exc)

    # -- reading ---------------------------------------------------------------------------------

    def on_ready(self, events: int) -> None:
        if events & ENDED:
            self._ended_hint = True
        if events & WRITABLE and self.unsent:
            self.touch()
        if events & (READABLE | ENDED):
            self._readable = True
            self._read()

    def on_again(self) -> None:
        if self._readable:
            self._read()

    def _read(self) -> None:
        """One read a turn: as much as TLS and the apps can be given in one go."""
        if self.closed:
            return
        if self.peer is None and not self._timers.may_handshake():
            self._reactor.again(self)
            return
        try:
            count = self._sock.recv_into(FROM_SOCKET_VIEW, READ_BYTES_MAX)
        except BlockingIOError:
            self._readable = False
            return
        except OSError as exc:
            self.close(TunnelEnd.CUT, exc.strerror or "")
            return
        if not count:
            self.close(TunnelEnd.CUT if self._owned else TunnelEnd.CLOSED)
            return
        if count < READ_BYTES_MAX and not self._ended_hint:
            self._readable = False
        else:
            self._reactor.again(self)
        try:
            self._tls.feed(FROM_SOCKET_VIEW[:count])
            if self.peer is None and not self._handshake():
                return
            self._deliver()
            if self._mixture.read(count, self._reactor.now_s):
                self._use_windows()
        except TlsClosed:
            self.close(TunnelEnd.CLOSED)
        except TlsError as exc:
            self._tls_failed(exc)

    def _deliver(self) -> None:
        tls = self._tls
        while tls.waiting and not self.closed:
            count = tls.read_into(DECRYPTED_VIEW)
            if count:
                events = self.session.receive(DECRYPTED_VIEW[:count], self._hand_data)
                if events:
                    self._dispatch(events)
        if self.session.outbound and not self.dirty:
            self.touch()

    def _use_windows(self) -> None:
        window_bytes = self.session.stream_window_bytes
        if self._mixture.mixed and near(self._sock):
            window_bytes = min(window_bytes, MIXED_WINDOW_BYTES)
        self.session.use_windows(window_bytes)

    def _handshake(self) -> bool:
        try:
            peer = self._tls.handshake()
        finally:
            self._send(self._tls.take())  # an alert too
        if peer is None or self.closed:
            return False
        self.peer = peer
        self._timers.handshake.stop(self)
        self._timers.ping.start(self)
        self.session.start()
        self.touch()
        self._user.tunnel_opened(self, peer)
        return not self.closed

    def _dispatch(self, events: list[Event]) -> None:
        """Hand out what one read brought besides DATA, and DATA that came behind such a thing."""
        for event in events:
            if self.closed:
                return
            if isinstance(event, DataReceived):
                self._hand_data(event.stream, event.data, None)
            else:
                self._act(event)

    def _hand_data(self, stream: Stream, data: memoryview, run: list[memoryview] | None) -> None:
        """Called by the session in the middle of a read. `run`: several pieces, `data` first."""
        owner: StreamOwner | None = stream.owner
        if owner is None:
            return
        try:
            if run is None:
                if len(data) <= SMALL_BYTES_MAX:
                    self._mixture.small += 1
                owner.on_data(data)
            else:
                owner.on_data_run(run)
        except Exception:  # the reactor's boundary, drawn around one stream instead of the tunnel
            self._reactor.caught(owner)

    def _act(self, event: Event) -> None:
        # A stream's life first: each connection has its start and its end here.
        if isinstance(event, (StreamEnded, ResponseReceived, StreamReset)):
            self._tell_owner(event)
        elif isinstance(event, RequestReceived):
            self._hand_request(event)
        elif isinstance(event, WindowOpened):
            if event.stream is None:
                self._blocked_by_window.resume(self._reactor)
            elif event.stream.owner is not None:
                event.stream.owner.on_window()
        elif isinstance(event, PeerSettingsChanged):
            self._user.tunnel_freed(self)
        elif isinstance(event, PingAcknowledged):
            if event.payload == _PING:  # an answer to something else proves nothing
                self._ping_sent_s = None
            elif event.payload == _PING_OF_DRAIN:
                self.session.finish_goaway()
                self._close_when_drained()
        elif isinstance(event, GoAwayReceived):
            self._user.tunnel_draining(self)
            self._close_when_drained()
        elif isinstance(event, ConnectionFailed):
            self.close(TunnelEnd.PROTOCOL, event.reason)

    def _tell_owner(self, event: StreamEnded | StreamReset | ResponseReceived) -> None:
        owner: StreamOwner | None = event.stream.owner
        if owner is None:
            return
        try:
            if isinstance(event, StreamEnded):
                owner.on_end()
            elif isinstance(event, StreamReset):
                owner.on_reset(event.code)
            else:
                owner.on_response(event.status, event.ended)
        except Exception:  # the reactor's boundary, drawn around one stream instead of the tunnel
            self._reactor.caught(owner)

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

    # -- writing ---------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something may have been added to the session's output."""
        if not self.dirty:
            self.dirty = True
            self._reactor.flush_later(self)

    def wait_for_room(self, relay: Resumable, had_share: bool) -> None:
        """Until the turn's output is with the kernel."""
        self.contended = True
        self._blocked_by_buffer.add(relay, had_share)

    def wait_for_window(self, relay: Resumable, had_share: bool) -> bool:
        """The stream's own window has its own event; the connection's is everybody's."""
        if self.session.send_window > 0:
            return False
        self.contended = True
        self._blocked_by_window.add(relay, had_share)
        return True

    def flush(self) -> None:
        self.dirty = False
        self.written_bytes = 0
        if self.closed:
            return
        if (not self.unsent or self._send(b"")) and self.peer is not None:
            self._write()
        if not self.unsent and not self.closed:
            self.contended = bool(self._blocked_by_buffer or self._blocked_by_window)
            self._blocked_by_buffer.resume(self._reactor)

    def _write(self) -> None:
        """All of the turn's output in one TLS write and one send."""
        if not self.session.outbound:
            return
        try:
            data = self._tls.write(self.session.take())
        except TlsError as exc:
            self._tls_failed(exc)
            return
        self._send(data)

    def write_large(self, frame: memoryview) -> None:
        """A frame that fills records by itself, as part of the session's output: it goes out from
        where it lies, behind what waits already. That this ends the turn's gathering early costs
        less than copying it."""
        session = self.session
        if self.unsent or self.peer is None:
            session.outbound += frame
            return
        self._write()
        if self.closed:
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
            self._tls_failed(exc)
            return
        self._send(data)

    def _send(self, data: bytes) -> bool:
        """Everything is with the kernel now. What is not goes first at the next `flush`."""
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
            self.close(TunnelEnd.CUT, exc.strerror or "")
            return False
        self.unsent = memoryview(data)[sent:] if sent < len(data) else b""
        return not self.unsent

    # -- keeping alive, draining, closing --------------------------------------------------------

    def on_handshake_due(self) -> None:
        self.close(TunnelEnd.HANDSHAKE_TIMEOUT)

    def on_ping_due(self) -> None:
        now_s = self._reactor.now_s
        if self._ping_sent_s is None:
            self._ping_sent_s = now_s
            self.session.ping(_PING)
            self.touch()
        elif now_s - self._ping_sent_s >= PING_TIMEOUT_S:
            self.close(TunnelEnd.PING_TIMEOUT)
            return
        self._timers.ping.start(self)

    def drain(self) -> None:
        """Say that no new streams are wanted; open ones finish, then the tunnel closes."""
        if self._drain_requested or self.closed:
            return
        self._drain_requested = True
        if self.peer is None:
            self.close(TunnelEnd.DRAINED)
            return
        self.session.goaway(ErrorCode.NO_ERROR, drain=True)
        # When this comes back the peer has seen the GOAWAY: what it opens later may be refused.
        self.session.ping(_PING_OF_DRAIN)
        self.touch()

    def stream_over(self, stream: Stream) -> None:
        """Its owner let go of it."""
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
        self._timers.handshake.stop(self)
        self._timers.ping.stop(self)
        owners = [stream.owner for stream in self._owned.values()]
        if self.peer is not None and end not in (TunnelEnd.CUT, TunnelEnd.REJECTED):
            self._say_goodbye(end)
        self._reactor.discard(self._sock)
        lost = {
            TunnelEnd.POD_DELETED: RelayEnd.POD_DELETED,
            TunnelEnd.DRAINED: RelayEnd.DRAINED,
        }.get(end, RelayEnd.TUNNEL_LOST)
        for owner in owners:
            if owner is not None:
                self._reactor.serve(owner, owner.on_tunnel_lost, lost)
        self._blocked_by_buffer.clear()
        self._blocked_by_window.clear()
        self._user.tunnel_closed(self, end, detail)

    @property
    def _never_answered(self) -> bool:
        """In TLS 1.3 a client is done before the server has looked at its certificate, and the
        server's alert may be lost to the reset that follows it."""
        return self.peer is not None and not self.session.peer_ready

    def _say_goodbye(self, end: TunnelEnd) -> None:
        """Best effort: the kernel takes it now or nobody hears it."""
        try:
            if not self.session.goaway_sent:
                self.session.goaway(ErrorCode.NO_ERROR, drain=False)
            data = self._tls.write(self.session.take()) if self.session.outbound else b""
            data += self._tls.close()
            if not self.unsent:
                self._sock.send(data)
        except (TlsError, OSError):
            pass

    def _tls_failed(self, exc: TlsError) -> None:
        self.refusal = exc.refusal
        self.close(TunnelEnd.TLS, str(exc))

    def on_bug(self) -> None:
        self.close(TunnelEnd.INTERNAL_ERROR)
