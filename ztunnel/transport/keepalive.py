"""The deadlines that all tunnels of a worker share, and its patience with handshakes and hosts."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from ztunnel.loop.reactor import Countdown, Reactor, Served

HANDSHAKE_S: Final = 10.0
# Steps of handshakes in one turn, at about 0.5 ms each: what open connections wait at most when
# many peers arrive at once.
HANDSHAKES_PER_TURN_MAX: Final = 8
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


class Keepalive:
    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._turn = -1
        self._steps = 0
        self.handshake: Countdown = reactor.countdown(HANDSHAKE_S, _handshake_due)
        self.ping: Countdown = reactor.countdown(PING_EVERY_S, _ping_due)

    def may_handshake(self) -> bool:
        """Count a step of a handshake; False once this turn has had its share. Each costs a
        signature."""
        if self._turn != self._reactor.turns:
            self._turn, self._steps = self._reactor.turns, 0
        self._steps += 1
        return self._steps <= HANDSHAKES_PER_TURN_MAX


def _handshake_due(tunnel: KeptAlive) -> None:
    tunnel.on_handshake_due()


def _ping_due(tunnel: KeptAlive) -> None:
    tunnel.on_ping_due()


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
