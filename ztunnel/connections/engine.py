"""The parts that all connections of a worker share, and the pods it serves; wiring, no protocol."""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from control.kit.clock import Clock
from control.model.identity import SpiffeId
from ztunnel.connections.first_word import PATIENCE_S
from ztunnel.connections.pod import OpenConnection, Pod
from ztunnel.connections.pool import Pool
from ztunnel.connections.sockaddr import Original, original_destination
from ztunnel.loop.reactor import Reactor, Served
from ztunnel.mesh.dice import Dice
from ztunnel.mesh.state import State
from ztunnel.telemetry.access_log import AccessLog
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties
from ztunnel.transport.credentials import Credentials
from ztunnel.transport.dial import Dials
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.handshakes import Handshakes
from ztunnel.transport.keepalive import Keepalive

# Descriptors left for listeners, namespaces, the supervisor and dials under way.
DESCRIPTORS_RESERVED: Final = 128
# A connection needs its own socket and one towards the app or (shared) the tunnel.
DESCRIPTORS_PER_CONNECTION: Final = 2
# The peer has 10 s to reach its app; more than that and a slow network is lost.
RESPONSE_S: Final = 20.0
# Meanwhile each waiting connection looks this often at its tunnel, and has the peer asked for a
# sign of life. A peer whose host answers nothing for SILENT_S has not seen the request.
LOOK_S: Final = 1.0
SILENT_S: Final = 2.0


class AwaitsResponse(Served, Protocol):
    def on_response_due(self) -> None:
        """The peer has not answered the request for another LOOK_S."""


class AwaitsFirstWord(Served, Protocol):
    def on_first_word_due(self) -> None:
        """Neither end of the connection has spoken within PATIENCE_S."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    trust_domain: str = "cluster.local"
    worker: int = 0
    node: str = ""


class Engine:
    """Made once in a worker, when its configuration is known."""

    def __init__(
        self,
        reactor: Reactor,
        clock: Clock,
        state: State,
        config: EngineConfig,
        *,
        dialer: Dials,
        access_log: AccessLog | None,
        ask_certificate: Callable[[SpiffeId, bool], None],
        original_destination: Callable[[socket.socket], Original | None] = original_destination,
    ) -> None:
        """`access_log` is None where connections leave no lines. `ask_certificate(identity,
        waiting)` asks the supervisor for a certificate."""
        self.reactor: Final = reactor
        self.clock: Final = clock
        self.state: Final = state
        self.config: Final = config
        self.dialer: Final = dialer
        self.access_log: Final = access_log
        self.original_destination: Final = original_destination
        self.counters: Final = Counters(known=state.has)
        self.keepalive: Final = Keepalive(reactor)
        self.credentials: Final = Credentials(reactor, clock, ask_certificate)
        self.pool: Final = Pool(reactor, self.keepalive, self.credentials, dialer)
        self.handshakes: Final = Handshakes()
        self.random: Final = random.Random()
        self.dice: Final = Dice()  # for decisions alone
        self.pods: Final[dict[str, Pod]] = {}
        self.responses: Final = reactor.countdown(LOOK_S, _response_due)
        self.first_words: Final = reactor.countdown(PATIENCE_S, _first_word_due)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.connections_max: Final = max(
            16, (soft - DESCRIPTORS_RESERVED) // DESCRIPTORS_PER_CONNECTION
        )
        self.connections = 0

    def outcome(self, parties: Parties, age_s: float = 0.0) -> Outcome:
        return Outcome(self.clock, parties, self.access_log, age_s)

    def enter(self, book: dict[OpenConnection, None], connection: OpenConnection) -> None:
        book[connection] = None
        self.connections += 1

    def leave(self, book: dict[OpenConnection, None], connection: OpenConnection) -> None:
        """The end of a connection; safe to repeat."""
        if connection in book:
            del book[connection]
            self.connections -= 1

    def remove_pod(self, uid: str) -> None:
        """End everything of the pod at once: its namespace is going away."""
        pod = self.pods.pop(uid, None)
        if pod is None:
            return
        pod.stop_listening()
        for book in (pod.outbound, pod.inbound):
            for connection in list(book):
                self.reactor.serve(connection, connection.abort, RelayEnd.POD_DELETED)
        for tunnel in list(pod.tunnels):
            self.reactor.serve(tunnel, tunnel.close, TunnelEnd.POD_DELETED)
        self.pool.forget_pod(uid)
        self.dialer.leave(pod.netns_fd)
        if pod.netns_fd >= 0:
            os.close(pod.netns_fd)


def _response_due(waiting: AwaitsResponse) -> None:
    waiting.on_response_due()


def _first_word_due(waiting: AwaitsFirstWord) -> None:
    waiting.on_first_word_due()
