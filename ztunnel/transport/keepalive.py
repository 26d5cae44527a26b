"""The deadlines that all tunnels of a worker share, and its patience with handshakes and hosts."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from ztunnel.loop.countdown import Countdown
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.tenants.tenancy import Tenancy

HANDSHAKE_S: Final = 10.0
# Steps of handshakes in one turn, at about STEP_S each: what open connections wait at most when
# many peers arrive at once.
HANDSHAKES_PER_TURN_MAX: Final = 8
HANDSHAKES_PER_BUSY_TURN_MAX: Final = 2
STEP_S: Final = 0.0005
# While bytes move in tunnels, handshakes have a third of the time: after their steps they rest
# twice as long as those took. Bytes moved this long ago count.
BUSY_S: Final = 0.01
REST_TIMES: Final = 2
# Tunnels that are read later are looked at again after one of these.
LATER_S: Final = 0.05
MUCH_LATER_S: Final = 1.0
PING_EVERY_S: Final = 10.0
PING_TIMEOUT_S: Final = 20.0
# Bytes that the peer's host has not acknowledged end a tunnel as an unanswered PING does: TCP alone
# would try for a quarter of an hour.
USER_TIMEOUT_MS: Final = int(PING_TIMEOUT_S * 1000)
_NEVER_S: Final = -1.0
# TCP's own probes, for a host that vanished: first after 180 s, each 180 s, nine times.
KEEPALIVE_S: Final = 180
KEEPALIVE_PROBES: Final = 9


class KeptAlive(Served, Protocol):
    def on_handshake_due(self) -> None:
        """The handshake took longer than HANDSHAKE_S."""

    def on_ping_due(self) -> None:
        """PING_EVERY_S have passed."""

    def on_later(self) -> None:
        """It may be read again."""

    @property
    def payer(self) -> Tenancy: ...


class Keepalive:
    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._turn = -1
        self._steps = 0
        self._rest_s = 0.0
        self.moved_s = -BUSY_S  # when an open tunnel was last read
        self.handshake: Countdown = reactor.countdown(HANDSHAKE_S, _handshake_due)
        self.ping: Countdown = reactor.countdown(PING_EVERY_S, _ping_due)
        self._later: Countdown = reactor.countdown(LATER_S, _later_due)
        self._much_later: Countdown = reactor.countdown(MUCH_LATER_S, _later_due)
        self._resting: Countdown = reactor.countdown(STEP_S, Keepalive._rested)
        # Handshakes by payer; both in the order of their turns.
        self._waiting: dict[Tenancy, dict[KeptAlive, None]] = {}
        self._called: dict[KeptAlive, None] = {}  # those whose turn it is

    def may_handshake(self, tunnel: KeptAlive) -> bool:
        """Count a step of a handshake: each costs a signature. False once this turn has had its
        share; `on_later` is called when there may be room."""
        payer, now_s = tunnel.payer, self._reactor.now_s
        if payer.trusted:
            return True  # it has a fair part of the time, as all that is measured
        if self._turn != self._reactor.turns:
            self._turn, self._steps = self._reactor.turns, 0
        if tunnel in self._called:
            del self._called[tunnel]
        elif self._waiting or self._steps >= self._most() or (self._busy and now_s < self._rest_s):
            self._waiting.setdefault(payer, {})[tunnel] = None
            if not self._resting:
                self._resting.start(self)
            return False
        self._steps += 1
        self._rest_s = now_s + (1 + REST_TIMES) * self._steps * STEP_S
        return True

    def has_called(self, tunnel: KeptAlive) -> bool:
        """True if it is the tunnel's turn for a step of its handshake."""
        return tunnel in self._called

    @property
    def waiting(self) -> int:
        """Handshakes that wait for their turn."""
        return sum(map(len, self._waiting.values()))

    @property
    def _busy(self) -> bool:
        return self._reactor.now_s - self.moved_s < BUSY_S

    def _most(self) -> int:
        return HANDSHAKES_PER_BUSY_TURN_MAX if self._busy else HANDSHAKES_PER_TURN_MAX

    def _rested(self) -> None:
        if not self._busy or self._reactor.now_s >= self._rest_s:
            for _ in range(self._most() - len(self._called)):
                if not self._waiting:
                    break
                self._call_next()
        if self._waiting:
            self._resting.start(self)

    def _call_next(self) -> None:
        """The oldest one of the payer that has waited for longest."""
        payer = next(iter(self._waiting))
        queue = self._waiting.pop(payer)
        tunnel = next(iter(queue))
        del queue[tunnel]
        if queue:
            self._waiting[payer] = queue
        self._called[tunnel] = None
        self._reactor.serve(tunnel, tunnel.on_later)

    def on_bug(self) -> None:
        """Nothing to do: those that wait are asked again, or reach their deadline."""

    def later(self, tunnel: KeptAlive, due_s: float) -> None:
        """Call the tunnel's `on_later` about then."""
        far = due_s - self._reactor.now_s >= MUCH_LATER_S
        (self._much_later if far else self._later).start(tunnel)

    def forget(self, tunnel: KeptAlive) -> None:
        """The tunnel has ended."""
        for each in (self.handshake, self.ping, self._later, self._much_later):
            each.stop(tunnel)
        self._called.pop(tunnel, None)
        queue = self._waiting.get(tunnel.payer)
        if queue is not None and queue.pop(tunnel, self) is None and not queue:
            del self._waiting[tunnel.payer]


def _handshake_due(tunnel: KeptAlive) -> None:
    tunnel.on_handshake_due()


def _ping_due(tunnel: KeptAlive) -> None:
    tunnel.on_ping_due()


def _later_due(tunnel: KeptAlive) -> None:
    tunnel.on_later()


class Pings:
    """Those of one tunnel: at most one waits for its answer."""

    __slots__ = ("_asked_s", "_reactor")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._asked_s = _NEVER_S

    def ask(self) -> bool:
        """Note that a PING is sent now; False if one is under way."""
        if self._asked_s != _NEVER_S:
            return False
        self._asked_s = self._reactor.now_s
        return True

    def answered(self) -> None:
        self._asked_s = _NEVER_S

    @property
    def silent_s(self) -> float:
        """Seconds for which a PING has waited for its answer."""
        return 0.0 if self._asked_s == _NEVER_S else self._reactor.now_s - self._asked_s


def configure(sock: socket.socket) -> None:
    """Set the options that the TCP connection of every tunnel has."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
