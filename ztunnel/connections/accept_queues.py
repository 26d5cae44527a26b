"""Connections that were accepted, and wait for a fair turn: by the address that they come from.

A listener's own queue in the kernel is in the order of arrival, so whoever dials a thousand times
would be served a thousand times before anybody else. Accepting is cheap; all that follows is not,
and is done at the cost of the address. While turns are not shared nothing waits here.
"""

from __future__ import annotations

import logging
import socket
from typing import Final, Protocol

from control.model.address import Endpoint
from ztunnel.connections.engine import Engine, tell
from ztunnel.refusals import Reason
from ztunnel.tenants.seats import Seats
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.keepalive import LATER_S
from ztunnel.transport.sockets import reset

log = logging.getLogger("ztunnel.listeners")


class Takes(Protocol):
    """A listener."""

    def take(self, sock: socket.socket, client: Endpoint) -> None:
        """Serve the connection, also one of a listener that was closed meanwhile."""


class QueuedAccept:
    __slots__ = ("client", "listener", "sock")

    def __init__(self, listener: Takes, sock: socket.socket, client: Endpoint) -> None:
        self.listener = listener
        self.sock = sock
        self.client = client


class AcceptQueues:
    """Those of all listeners of a worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seats: Final[Seats[QueuedAccept]] = engine.tenants.arrivals
        self._sources: dict[Tenancy, AcceptQueue] = {}
        self._later: Final = engine.reactor.countdown(LATER_S, AcceptQueue.on_again)

    def __len__(self) -> int:
        return len(self._seats)

    def arrived(self, listener: Takes, sock: socket.socket, client: Endpoint) -> Tenancy:
        """Let the connection be taken: at once, or after others if there are several payers.
        Returns its source."""
        engine = self._engine
        source = engine.tenants.source(client.address)
        owes = source.not_before_s > engine.reactor.now_s
        if not owes and not engine.reactor.crowded and source not in self._sources:
            listener.take(sock, client)
            return source
        if owes and not self._seats.portions.may(source):
            # Its oldest ones wait until it has paid, which they may live to see.
            engine.counters.refuse(Reason.CONNECTIONS_MAX)
            source.refused += 1
            self._tell(source, client)
            sock.close()
            return source
        displaced = self._seats.enter(
            source, QueuedAccept(listener, sock, client), engine.reactor.now_s
        )
        if displaced is not None:
            self._drop(displaced)
        if source not in self._sources:
            made = self._sources[source] = AcceptQueue(self, engine, source)
            engine.reactor.again(made)
        return source

    def _drop(self, arrival: QueuedAccept) -> None:
        engine = self._engine
        source = engine.tenants.source(arrival.client.address)
        engine.refuse(Reason.CONNECTIONS_MAX, source)
        self._tell(source, arrival.client)
        reset(engine.reactor, arrival.sock)

    def _tell(self, source: Tenancy, client: Endpoint) -> None:
        reason = Reason.CONNECTIONS_MAX
        tell(self._engine, log, "listener.refused", source, reason=reason, client=client)

    def next(self, source: Tenancy) -> QueuedAccept | None:
        """The oldest one of the source; it leaves its seat."""
        arrival = self._seats.oldest(source)
        if arrival is None:
            self._sources.pop(source, None)
        else:
            self._seats.leave(source, arrival)
        return arrival

    def wait(self, source: AcceptQueue) -> None:
        """Go on when the source has paid."""
        self._later.start(source)


class AcceptQueue:
    """One address, as long as connections of it wait."""

    __slots__ = ("_arrivals", "_engine", "fresh", "payer")

    def __init__(self, arrivals: AcceptQueues, engine: Engine, payer: Tenancy) -> None:
        self._arrivals = arrivals
        self._engine = engine
        self.payer: Final = payer
        self.fresh = True  # nothing of it was taken yet

    def on_again(self) -> None:
        reactor = self._engine.reactor
        if self.payer.not_before_s > reactor.now_s:
            self._arrivals.wait(self)
            return
        end_s = reactor.clock() + reactor.slice_s
        while True:
            arrival = self._arrivals.next(self.payer)
            if arrival is None:
                return
            reactor.serve(self, arrival.listener.take, arrival.sock, arrival.client)
            if reactor.clock() >= end_s:
                self.fresh = False
                reactor.again(self)
                return

    def on_bug(self) -> None:
        """Go on: a single connection was mishandled."""
