"""The three listeners of a pod: accept a bounded number a turn, and hand each to its handler.

Without descriptors, or at a bound for connections, accepting pauses instead of spinning: the
kernel's queue holds the rest, and after that the peers' SYNs wait. A pod at its own bound, or with
nothing but refusals, pauses its own listener only.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from collections.abc import Callable
from typing import Final

from control.model.address import Endpoint
from ztunnel.connections.accept_queues import AcceptQueues
from ztunnel.connections.engine import Engine, tell
from ztunnel.connections.inbound import accept_plaintext
from ztunnel.connections.inbound_tunnel import accept_tunnel
from ztunnel.connections.outbound import accept_outbound
from ztunnel.connections.pod import Pod
from ztunnel.connections.sockaddr import endpoint_of
from ztunnel.loop.countdown import Countdown
from ztunnel.loop.reactor import WATCH_LEVEL
from ztunnel.mesh.roles import Accepted
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.sockets import bare_socket, reset

log = logging.getLogger("ztunnel.listeners")

# One listener's share of a turn. At 100 µs each, it bounds the others' wait.
ACCEPTS_PER_TURN_MAX: Final = 32
# Accepts of what waits when the listener is about to be closed.
REST_MAX: Final = 256
# Pause after EMFILE and its kin; connections end in the meantime.
PAUSE_S: Final = 0.25
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2) reports these for a connection that was gone before it was accepted.
_GONE: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN})

Accept = Callable[[], tuple[int, tuple[str | int, ...]]]
Taken = Callable[[socket.socket, Endpoint], None]


class Pauses:
    """The pauses of all listeners of a worker, and connections that wait."""

    def __init__(self, engine: Engine) -> None:
        self.arrivals: Final = AcceptQueues(engine)
        self.countdown: Countdown = engine.reactor.countdown(PAUSE_S, Listener.resume)


class Listener:
    def __init__(
        self,
        engine: Engine,
        pauses: Pauses,
        sock: socket.socket,
        name: str,
        taken: Taken,
        tenant: Tenancy | None = None,
    ) -> None:
        """`tenant`: who pays for what is accepted; None if the connection must tell."""
        sock.setblocking(False)
        # Accepted sockets inherit this (Linux), which saves a system call for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine = engine
        self._pauses = pauses
        self._sock = sock
        self._name = name
        self._taken = taken
        self._tenant = tenant
        # Its turns, and its log lines, are a stranger's as long as nobody is known behind them.
        self._told = tenant or Tenancy(Kind.DOOR, name)
        self._family = int(sock.family)
        # The inner half of `accept`, without its questions about the new socket (2 µs).
        self._accept: Accept = sock._accept  # type: ignore[attr-defined]  # typeshed leaves it out
        self._closed = False
        self._turn = -1  # that had the last accept
        engine.reactor.watch(sock.fileno(), self, WATCH_LEVEL)

    @property
    def payer(self) -> Tenancy:
        return self._told

    def on_ready(self, events: int) -> None:
        # Accept one, or many if the turn before had one as well: then it is a burst. Connections
        # that come one by one are thus spared an accept() that fails; epoll reports any that wait.
        reactor = self._engine.reactor
        burst, self._turn = reactor.turns == self._turn + 1, reactor.turns
        began_s = reactor.clock()
        end_s = began_s + reactor.slice_s if burst and reactor.crowded else math.inf
        for _ in range(ACCEPTS_PER_TURN_MAX if burst else 1):
            if not self._has_room():
                self._pause("too_many_connections")
                return
            if self._slowed:
                self._pause("too_many_refusals")
                return
            try:
                descriptor, name = self._accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _GONE:
                    continue
                self._pause("no_descriptors" if exc.errno in _EXHAUSTED else "accept_failed")
                return
            sock = bare_socket(self._family, descriptor)
            sock.setblocking(False)
            if self._tenant is None:
                began_s = self._arrived(sock, endpoint_of(name), began_s)
            else:
                self.take(sock, endpoint_of(name))
            if end_s < math.inf and reactor.clock() >= end_s:
                return

    def take_rest(self) -> None:
        for _ in range(REST_MAX):
            if self._closed or not self._has_room():
                return
            try:
                descriptor, name = self._accept()
            except OSError:
                return
            sock = bare_socket(self._family, descriptor)
            sock.setblocking(False)
            self.take(sock, endpoint_of(name))

    def _has_room(self) -> bool:
        engine, tenant = self._engine, self._tenant
        share = engine.tenants.connections
        return not share.full if tenant is None else share.may(tenant)

    @property
    def _slowed(self) -> bool:
        tenant = self._tenant
        return tenant is not None and tenant.not_before_s > self._engine.reactor.now_s

    def take(self, sock: socket.socket, client: Endpoint) -> None:
        try:
            self._taken(sock, client)
        except OSError:
            sock.close()  # the client has left already
            self._engine.counters.count("accepted_and_gone")

    def _arrived(self, sock: socket.socket, client: Endpoint, began_s: float) -> float:
        """Nobody knows yet who pays for the connection, but where it comes from: it does for all
        that was done since then. Returns the time."""
        reactor = self._engine.reactor
        source = self._pauses.arrivals.arrived(self, sock, client)
        if not reactor.weight:
            return began_s
        now_s = reactor.clock()
        reactor.blame(self._told, source, now_s - began_s)
        return now_s

    def _pause(self, reason: str) -> None:
        self._engine.counters.count(f"accept_paused_{reason}")
        tell(self._engine, log, "listener.paused", self._told, listener=self._name, reason=reason)
        self._engine.reactor.unwatch(self._sock.fileno())
        self._pauses.countdown.start(self)

    def resume(self) -> None:
        if not self._closed:
            self._engine.reactor.watch(self._sock.fileno(), self, WATCH_LEVEL)

    def on_bug(self) -> None:
        """Go on: a single connection was mishandled."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pauses.countdown.stop(self)
            self._engine.reactor.discard(self._sock)


def listen(
    engine: Engine,
    pauses: Pauses,
    pod: Pod,
    outbound: socket.socket | None,
    plaintext: socket.socket | None,
    hbone: socket.socket | None,
) -> None:
    """Register the pod's listeners."""

    def take_plaintext(sock: socket.socket, peer: Endpoint) -> None:
        if pod.gone:  # while it waited for its turn
            reset(engine.reactor, sock)
            return
        accept_plaintext(engine, pod, sock, peer, Accepted(endpoint_of(sock.getsockname())))

    def take_tunnel(sock: socket.socket, peer: Endpoint) -> None:
        if pod.gone:
            reset(engine.reactor, sock)
            return
        accept_tunnel(engine, pod, sock, peer, Accepted(endpoint_of(sock.getsockname())))

    def take_outbound(sock: socket.socket, peer: Endpoint) -> None:
        accept_outbound(engine, pod, sock, peer)

    wanted: tuple[tuple[str, socket.socket | None, Taken], ...] = (
        ("outbound", outbound, take_outbound),
        ("plaintext", plaintext, take_plaintext),
        ("hbone", hbone, take_tunnel),
    )
    for name, sock, taken in wanted:
        if sock is not None:
            pod.own_ports.add(endpoint_of(sock.getsockname()).port)
            tenant = pod.tenant if name == "outbound" else None
            pod.listeners.append(Listener(engine, pauses, sock, name, taken, tenant))
