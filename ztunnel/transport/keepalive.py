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


def configure(sock: socket.socket) -> None:
    """Set the options that the TCP connection of every tunnel has."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
