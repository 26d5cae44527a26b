"""The parts that all connections of a worker share, and the pods it serves; wiring, no protocol."""

from __future__ import annotations

import logging
import os
import random
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from control.kit.clock import Clock
from control.kit.log import event
from control.model.identity import SpiffeId
from ztunnel.connections.first_word import PATIENCE_S
from ztunnel.connections.lookups import AddressLookups, Ask
from ztunnel.connections.newcomers import Newcomers
from ztunnel.connections.pod import Book, OpenConnection, Pod
from ztunnel.connections.pool import Pool
from ztunnel.connections.sockaddr import Original, original_destination
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.dice import Dice
from ztunnel.mesh.state import State
from ztunnel.refusals import BLAMED, Reason
from ztunnel.telemetry.access_log import AccessLog
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Parties
from ztunnel.tenants.book import Tenants
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.tenants.work import REFUSAL_WORK_S, may_log
from ztunnel.transport.credentials import Credentials
from ztunnel.transport.dial import Dials
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.keepalive import Keepalive

log = logging.getLogger("ztunnel.engine")

# The peer has 10 s to reach its app; more than that and a slow network is lost.
RESPONSE_S: Final = 20.0
# Meanwhile each waiting connection looks this often at its tunnel, and has the peer asked for a
# sign of life. A peer whose host answers nothing for SILENT_S has not seen the request.
LOOK_S: Final = 1.0
SILENT_S: Final = 2.0
# For the peer of an idle tunnel to see that it ends.
FAREWELL_S: Final = 5.0
# An idle tunnel of a peer ends after this; our own pool lets go after half of it.
TUNNEL_IDLE_S: Final = 600.0
# Between two looks at them.
SWEEP_S: Final = 30.0


class AwaitsResponse(Served, Protocol):
    def on_response_due(self) -> None:
        """The peer has not answered the request for another LOOK_S."""


class AwaitsFarewell(Served, Protocol):
    def on_farewell_due(self) -> None:
        """The peer has had FAREWELL_S to see that the tunnel ends."""


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
        ask_address: Ask = lambda _pod, _names, _spare: None,
        original_destination: Callable[[socket.socket], Original | None] = original_destination,
        tenants: Tenants | None = None,
    ) -> None:
        """`access_log` is None where connections leave no lines. `ask_certificate(identity,
        waiting)` asks the supervisor for a certificate, `ask_address(pod, names, spare)` for the
        control plane's answer about names."""
        self.reactor: Final = reactor
        self.clock: Final = clock
        self.state: Final = state
        self.config: Final = config
        self.dialer: Final = dialer
        self.access_log: Final = access_log
        self.original_destination: Final = original_destination
        self.counters: Final = Counters(known=state.has)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.tenants: Final = tenants or Tenants(soft)
        self.keepalive: Final = Keepalive(reactor)
        self.credentials: Final = Credentials(reactor, clock, ask_certificate)
        self.pool: Final = Pool(reactor, self.keepalive, self.credentials, dialer, self.tenants)
        self.pool.on_dismissed = self._peer_dismissed
        self.random: Final = random.Random()
        self.dice: Final = Dice()  # for decisions alone
        self.pods: Final[dict[str, Pod]] = {}
        self.newcomers: Final = Newcomers(reactor)  # dialled by pods
        self.callers: Final = Newcomers(reactor)  # to pods: strangers take none of their places
        self.lookups: Final = AddressLookups(reactor, ask_address)
        self.farewells: Final = reactor.countdown(FAREWELL_S, _farewell_due)
        self.responses: Final = reactor.countdown(LOOK_S, _response_due)
        self.first_words: Final = reactor.countdown(PATIENCE_S, _first_word_due)
        self.connections = 0
        self._sweep: Final = reactor.countdown(SWEEP_S, Engine._end_long_idle)
        self._sweep.start(self)

    def outcome(self, parties: Parties, age_s: float = 0.0) -> Outcome:
        return Outcome(self.clock, parties, self.access_log, age_s)

    def refuse(self, reason: Reason, tenant: Tenancy | None) -> None:
        """Count a refusal, and the work of one that its tenant is to blame for. `tenant` is None
        if nobody asked."""
        self.counters.refuse(reason)
        if tenant is None:
            return
        tenant.refused += 1
        if reason in BLAMED:
            self.tenants.work.spend(tenant, REFUSAL_WORK_S, self.reactor.now_s)

    def _peer_dismissed(self, reason: Reason, tenant: Tenancy, peer: str) -> None:
        """A server's tunnel was ended for what it did; the pod that uses it is not to blame."""
        self.counters.refuse(reason)
        tell(self, log, "outbound.dismissed", tenant, reason=reason, peer=peer)

    def enter(self, book: Book, connection: OpenConnection, tenant: Tenancy | None = None) -> None:
        """The begin of a connection; `tenant` pays for it."""
        book[connection] = tenant
        self.connections += 1
        if tenant is not None:
            self.tenants.connections.add(tenant, 1)

    def leave(self, book: Book, connection: OpenConnection) -> None:
        """The end of a connection; safe to repeat."""
        if connection in book:
            tenant = book.pop(connection)
            self.connections -= 1
            if tenant is not None:
                self.tenants.connections.give(tenant)

    def workloads_came(self) -> None:
        """Begin what waited for them."""
        self.newcomers.told(self.state)
        self.callers.told(self.state)

    def _end_long_idle(self) -> None:
        now_s = self.reactor.now_s
        self.tenants.work.settle(now_s)
        for each in self.tenants.idle.older(now_s - TUNNEL_IDLE_S):
            self.reactor.serve(each, each.make_room)
        self._sweep.start(self)

    def on_bug(self) -> None:
        """The next sweep tries again."""
        self._sweep.start(self)

    def remove_pod(self, uid: str) -> None:
        """End everything of the pod at once: its namespace is going away."""
        pod = self.pods.pop(uid, None)
        if pod is None:
            return
        pod.gone = True
        pod.stop_listening()
        self.newcomers.leave(pod)
        self.callers.leave(pod)
        for book in (pod.outbound, pod.inbound):
            for connection in list(book):
                self.reactor.serve(connection, connection.abort, RelayEnd.POD_DELETED)
        for tunnel in list(pod.tunnels):
            self.reactor.serve(tunnel, tunnel.close, TunnelEnd.POD_DELETED)
        self.pool.forget_pod(uid)
        self.dialer.leave(pod.netns_fd)
        if pod.netns_fd >= 0:
            os.close(pod.netns_fd)


def tell(
    engine: Engine, log: logging.Logger, name: str, tenant: Tenancy, /, **fields: object
) -> None:
    """Log a warning about the tenant, unless it had its share of lines. `left_out` says how many of
    it were not written since the last."""
    if not may_log(tenant, engine.reactor.now_s):
        return
    if tenant.left_out:
        fields["left_out"], tenant.left_out = tenant.left_out, 0
    event(log, logging.WARNING, name, **fields)


def _farewell_due(leaving: AwaitsFarewell) -> None:
    leaving.on_farewell_due()


def _response_due(waiting: AwaitsResponse) -> None:
    waiting.on_response_due()


def _first_word_due(waiting: AwaitsFirstWord) -> None:
    waiting.on_first_word_due()
