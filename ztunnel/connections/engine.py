"""What all connections of a worker share, and the pods it serves; wiring, no protocol."""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from control.kit.clock import Clock
from control.model.address import Endpoint
from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.connections.pod import OpenConnection, Pod
from ztunnel.connections.pool import Pool
from ztunnel.loop.reactor import Countdown, Reactor
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.dice import Dice
from ztunnel.mesh.route import ToTunnel
from ztunnel.mesh.state import State
from ztunnel.telemetry.access_log import AccessLog
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties
from ztunnel.transport.credentials import Credentials
from ztunnel.transport.dial import Dialer, Dials, Namespaces
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.handshakes import Handshakes
from ztunnel.transport.tunnel import Keepalive

# Descriptors left for listeners, namespaces, the supervisor and dials under way.
DESCRIPTORS_RESERVED: Final = 128
# A connection needs its own socket and one towards the app or (shared) the tunnel.
DESCRIPTORS_PER_CONNECTION: Final = 2


# What an app dialled, and where the kernel's own draw among a service's endpoints fell.
Original = tuple[Endpoint, Hint]


class Observer(Protocol):
    """Who wants to know of connections that the other side has admitted."""

    def admitted(self, pod: Pod, source: Workload, asked: Endpoint, decision: ToTunnel) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineConfig:
    trust_domain: str = "cluster.local"
    worker: int = 0
    node: str = ""
    access_log: bool = True
    drain_s: float = 5.0


class Engine:
    """One per worker."""

    def __init__(
        self,
        reactor: Reactor,
        clock: Clock,
        state: State,
        config: EngineConfig,
        ask_certificate: Callable[[SpiffeId, bool], None],
        original_destination: Callable[[socket.socket], Original | None],
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.state = state
        self.config = config
        self.counters = Counters()
        self.access_log: AccessLog | None = None
        self.namespaces = Namespaces()
        self.dialer: Dials = Dialer(reactor, self.namespaces)
        self.keepalive = Keepalive(reactor)
        self.credentials = Credentials(reactor, ask_certificate)
        self.original_destination = original_destination
        self.random = random.Random()
        self.dice = Dice()  # for decisions alone
        self.pods: dict[str, Pod] = {}
        self.direct: Observer | None = None  # on nodes where the kernel may take over
        self.pool: Pool
        self.responses: Countdown  # of streams that wait for their 200
        self.first_words: Countdown  # of connections to apps, until somebody has spoken
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.connections_max = max(16, (soft - DESCRIPTORS_RESERVED) // DESCRIPTORS_PER_CONNECTION)
        self.connections = 0
        self.handshakes = Handshakes()

    def outcome(self, parties: Parties, age_s: float = 0.0) -> Outcome:
        lines = self.access_log if self.config.access_log else None
        return Outcome(self.clock, parties, lines, age_s)

    def enter(self, book: dict[OpenConnection, None], connection: OpenConnection) -> None:
        book[connection] = None
        self.connections += 1

    def leave(self, book: dict[OpenConnection, None], connection: OpenConnection) -> None:
        if book.pop(connection, self) is None:
            self.connections -= 1

    def remove_pod(self, uid: str) -> None:
        """Everything of it ends now: its namespace is going away."""
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
        self.namespaces.forget(pod.netns_fd)
        if pod.netns_fd >= 0:
            os.close(pod.netns_fd)
