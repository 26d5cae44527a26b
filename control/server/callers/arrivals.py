"""Connections and whom they count for: the address they came from until a call shows a token, the
node or waypoint of that token from then on. The address is for accounts and log lines, never for
identity."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from control.kit.clock import Clock
from control.kit.log import event
from control.server.callers.budget import (
    CALLING,
    CONNECTIONS,
    LINES,
    OPENED,
    RECEIVED,
    RECEIVING,
    UNADMITTED,
    WAYPOINTS,
    Paces,
    Shares,
    Tenant,
    source_tenant,
)
from control.server.callers.refusals import CallRefusal
from control.server.callers.strangers import Strangers
from control.server.callers.turns import Turns
from control.server.metrics import Metrics

log = logging.getLogger("access")

# A connection that shows bad tokens is a mistake or a guess: two tries more than a client that
# reads its token anew after a refusal needs.
REFUSED_CALLS_MAX = 4
# Tenants whose refusals are counted apart, for the page of callers.
COUNTED_TENANTS_MAX = 4096


@dataclass(eq=False, slots=True)
class Arrival:
    """One connection. `close(why)` ends it; `admitted` is called when a call was let in."""

    number: int
    address: str
    tenant: Tenant
    close: Callable[[CallRefusal], None]
    admitted: Callable[[], None]
    # Pays for what comes next: the node of the last call, since a proxy may carry many nodes.
    payer: Tenant
    is_admitted: bool = False
    is_sending: bool = False  # a large message, or it waits for its turn to do so
    taken: Callable[[], object] = bool  # to be called when a message was taken from gRPC
    refused_calls: int = 0
    group: Tenant | None = None  # shares a bound of its own


@dataclass(slots=True)
class Refusals:
    """One tenant's refusals by reason, and the log lines that were left out since the last."""

    by_reason: dict[CallRefusal, int] = field(default_factory=dict)
    left_out: int = 0


class Arrivals:
    """Every open connection. `capacity`: how many connections descriptors allow."""

    def __init__(self, metrics: Metrics, clock: Clock, capacity: int) -> None:
        self._metrics = metrics
        self._clock = clock
        # A third for those without a token, so that neither kind can use up the other's. One that
        # gRPC has not heard of takes a descriptor, the others three.
        calling = CALLING.lowered(capacity // 3)
        self._strangers: Strangers[Arrival] = Strangers(
            UNADMITTED.lowered(3 * calling.total), calling
        )
        self.connections = Shares(CONNECTIONS.lowered(capacity - calling.total))
        self.waypoints = Shares(WAYPOINTS.lowered(self.connections.bound.total // 2))
        self.receiving = Turns(RECEIVING)
        self.received = Paces(RECEIVED)
        self.opened = Paces(OPENED)
        self._lines = Paces(LINES)
        self._by_number: dict[int, Arrival] = {}
        self.refusals: OrderedDict[Tenant, Refusals] = OrderedDict()
        self._count = 0

    def open(
        self,
        host: str,
        port: int,
        close: Callable[[CallRefusal], None],
        admitted: Callable[[], None],
    ) -> Arrival:
        """A new connection; one without a token makes room if need be."""
        tenant = source_tenant(host)
        if (gone := self._strangers.in_the_way(tenant, self._clock.monotonic_s())) is not None:
            self._displace(gone)
        self._count += 1
        host = host.removeprefix("::ffff:")  # as IPv4, not mapped
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        arrival = Arrival(self._count, address, tenant, close, admitted, tenant)
        self._strangers.add(tenant, arrival)
        self._by_number[arrival.number] = arrival
        self.await_word(arrival)
        self._show()
        return arrival

    @property
    def unadmitted(self) -> Shares:
        return self._strangers.shares

    @property
    def silent(self) -> Shares:
        return self._strangers.silent

    def await_word(self, arrival: Arrival) -> None:
        """Without a token, it owes us the next word."""
        if arrival.is_admitted or arrival.number not in self._by_number:
            return
        now_s = self._clock.monotonic_s()
        self._strangers.await_word(arrival.tenant, arrival, now_s)
        for _ in range(2):  # more than come
            if (gone := self._strangers.too_silent(arrival.tenant, now_s)) is not None:
                self._displace(gone)

    def pass_on(self, arrival: Arrival) -> None:
        """Without a token, it has said something to gRPC."""
        if arrival.is_admitted or arrival.number not in self._by_number:
            return
        if (gone := self._strangers.too_many_call(arrival.tenant)) is not None:
            self._displace(gone)
        self._strangers.pass_on(arrival.tenant, arrival)

    def hear(self, arrival: Arrival) -> None:
        """It said something, and waits for us."""
        if not arrival.is_admitted and arrival.number in self._by_number:
            self._strangers.hear(arrival.tenant, arrival)

    def _displace(self, arrival: Arrival) -> None:
        arrival.close(CallRefusal.DISPLACED)
        self.leave(arrival)  # now, even if closing takes a moment

    def get(self, number: int) -> Arrival | None:
        return self._by_number.get(number)

    def admit(self, arrival: Arrival, tenant: Tenant, group: Tenant | None = None) -> bool:
        """A call with this tenant's token was let in; False when it has too many connections, or
        all of its group have. The connection itself counts for the first that it spoke for."""
        if arrival.is_admitted:
            arrival.payer = tenant
            return True
        if arrival.number not in self._by_number or not self._take(tenant, group):
            return False
        arrival.group = group
        self._strangers.remove(arrival.tenant, arrival)
        arrival.tenant = arrival.payer = tenant
        arrival.is_admitted = True
        arrival.admitted()
        self._show()
        return True

    def _take(self, tenant: Tenant, group: Tenant | None) -> bool:
        if not self.connections.take(tenant):
            return False
        if group is None or self.waypoints.take(group):
            return True
        self.connections.give(tenant)
        return False

    def leave(self, arrival: Arrival) -> None:
        """The connection is closed. Once is enough; twice does no harm."""
        if self._by_number.pop(arrival.number, None) is None:
            return
        if arrival.is_admitted:
            self.connections.give(arrival.tenant)
            if arrival.group is not None:
                self.waypoints.give(arrival.group)
        else:
            self._strangers.remove(arrival.tenant, arrival)
        self._show()

    def _show(self) -> None:
        self._metrics.connections.labels("admitted").set(self.connections.total)
        self._metrics.connections.labels("unadmitted").set(self.unadmitted.total)

    def refused(self, tenant: Tenant, method: str, why: CallRefusal, **fields: object) -> None:
        """Count a refusal, and log it unless this tenant has filled its lines."""
        if method == "csr":
            self._metrics.csr.labels("refused", why.word).inc()
        else:
            self._metrics.refused.labels(method, why.word).inc()
        known = self.refusals.setdefault(tenant, Refusals())
        self.refusals.move_to_end(tenant)
        if len(self.refusals) > COUNTED_TENANTS_MAX:
            self.refusals.popitem(last=False)
        known.by_reason[why] = known.by_reason.get(why, 0) + 1
        if not self._lines.allow(tenant, self._clock.monotonic_s()):
            known.left_out += 1
            return
        if known.left_out:
            fields["left_out"], known.left_out = known.left_out, 0
        event(log, logging.WARNING, f"{method}.refused", reason=why, **fields)
