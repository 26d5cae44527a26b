"""Shares of everything that callers use up, so that no caller can stop another.

Pure: amounts and times in, answers out. A tenant is a node that showed its token or, before that,
the address that a connection came from. Three kinds of bound: a `Bound` limits how much is held at
once, and a caller over it is refused or waits its turn (`Shares`); a `Pace` limits what is done in
a second (`Paces`); and `Rounds` takes work from tenants in turn, however much each has waiting.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from control.model.route import WaypointKey
from control.server.callers.refusals import CallRefusal

T = TypeVar("T")

KIB, MIB = 1024, 1024 * 1024

# Tenants that are remembered for their pace only. One that was quiet for a while is as good as
# new, so this bounds memory (some 200 bytes each) and forgets no debt of a busy one.
PACED_TENANTS_MAX = 8192


@dataclass(frozen=True, slots=True, order=True)
class Tenant:
    """`kind` is "node" (name of the node in the token), "waypoint" (one of a waypoint's on a node),
    "namespace" (all waypoints of one) or "source" (an address or prefix)."""

    kind: str
    name: str


def node_tenant(node: str) -> Tenant:
    return Tenant("node", node)


def waypoint_tenant(node: str, waypoint: WaypointKey) -> Tenant:
    """Apart from its node's: the ztunnel there must not be short of what a waypoint uses up."""
    return Tenant("waypoint", f"{waypoint} on {node}")


def source_tenant(host: str) -> Tenant:
    """The tenant of a connection without a token: an IPv4 address, or an IPv6 /64, since a host
    commonly has a whole one to itself. A v4-mapped address is its IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Tenant("source", "unknown")
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return Tenant("source", str(ipaddress.IPv6Network((address, 64), strict=False)))
        address = address.ipv4_mapped
    return Tenant("source", str(address))


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `each` for one tenant and `total` for all, at one moment. `why` is the refusal of
    more, None where more waits its turn."""

    why: CallRefusal | None
    each: int
    total: int

    def lowered(self, total: int) -> Bound:
        """The same with less for all: one tenant's part is half of that at most."""
        total = max(1, min(self.total, total))
        return Bound(self.why, min(self.each, max(1, total // 2)), total)


@dataclass(frozen=True, slots=True)
class Pace:
    """`per_s` in the long run, `burst` at once after a quiet time. `why` as in a bound."""

    why: CallRefusal | None
    per_s: float
    burst: float


# A node's agent has one connection, its ztunnel two; twice that while one takes over from another.
# The listener lowers `total` to what descriptors allow.
CONNECTIONS = Bound(CallRefusal.CONNECTIONS_MAX, each=8, total=16_384)
# Those of one namespace's waypoints together: whoever may make one may make many, and each has all
# the other bounds to itself. Two of each, for a hundred of them; half of all connections are kept
# for nodes.
WAYPOINTS = Bound(CallRefusal.CONNECTIONS_MAX, each=256, total=8192)
# Connections that have shown no token yet. A replica that starts meets all nodes at once, and a
# proxy may have many behind it, 682 nodes: over it, who has most makes room.
UNADMITTED = Bound(CallRefusal.DISPLACED, each=2048, total=4096)
# Those of them that owe us the next word for longer than two seconds: 60 KiB each at most. Over it
# the one that owes it longest goes, so silent ones never keep a new one out.
SILENT = Bound(CallRefusal.DISPLACED, each=256, total=1024)
# Those of them that gRPC has heard of: over it, the one goes that it has known longest.
CALLING = Bound(CallRefusal.DISPLACED, each=1024, total=4096)
# A ztunnel asks for eight certificates at once; an agent has a report and a stream.
CALLS = Bound(CallRefusal.CALLS_MAX, each=32, total=65_536)
# Agent and ztunnel have one each; twice that while one takes over from another, twice again while
# dead ones are not noticed.
STREAMS = Bound(CallRefusal.STREAMS_MAX, each=8, total=16_384)
# Names that streams ask for or hold and the mesh does not have: bytes.
NAMES = Bound(CallRefusal.NAMES_MAX, each=64 * MIB, total=512 * MIB)
# Connections on which a large message is on its way in: at most 16 MiB each (see the meter).
RECEIVING = Bound(None, each=1, total=8)
# Responses on their way out, of more than 64 KiB: bytes. Others wait their turn.
SENDING = Bound(None, each=32 * MIB, total=128 * MIB)
# Certificates being signed: each is some hundred microseconds in a thread of its own. One thread is
# always for somebody else.
SIGNING = Bound(None, each=1, total=2)
# Tokens that the API server is being asked about: some milliseconds each. Two for a node, so that
# ztunnel and agent need not wait for each other; few for all, since its patience with us is one.
REVIEWING = Bound(None, each=2, total=4)
# Responses being built, and reports being written to disk: one after the other, in turns.
BUILDING = Bound(None, each=1, total=1)
REPORTING = Bound(None, each=1, total=16)

# Traffic with a node, by cost in bytes (see the meter): 1,000 messages a second.
RECEIVED = Pace(None, per_s=16 * MIB, burst=32 * MIB)
# Calls that a node opens: each is some 0.6 ms. A node that starts again asks for a few hundred.
OPENED = Pace(None, per_s=200, burst=200)
# Tokens that a caller shows for the first time, or again after a minute: a node has two, and an
# address that others stand behind may have many nodes.
REVIEWS = Pace(CallRefusal.REVIEWS_RATE, per_s=8, burst=64)
# A node with 250 pods starts again, twice.
CERTIFICATES = Pace(CallRefusal.CERTIFICATES_RATE, per_s=32, burst=512)
# Pods whose capture a node reports as begun or ended. Every node hears of each.
CAPTURES = Pace(CallRefusal.CAPTURES_RATE, per_s=128, burst=8192)
# Log lines about refusals.
LINES = Pace(None, per_s=1, burst=10)
# Log lines about streams and reports.
TOLD = Pace(None, per_s=4, burst=100)

HELD = (CONNECTIONS, SILENT, CALLING, CALLS, STREAMS, NAMES, RECEIVING, SENDING)


class Rounds(Generic[T]):
    """Items that wait, by tenant: one of each tenant in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Tenant, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def tenants(self) -> Iterator[Tenant]:
        """Those with something waiting, the next one first."""
        return iter(self._waiting)

    def push(self, tenant: Tenant, item: T) -> None:
        self._waiting.setdefault(tenant, deque()).append(item)

    def head(self, tenant: Tenant) -> T:
        return self._waiting[tenant][0]

    def pop(self, tenant: Tenant | None = None) -> T:
        """Take the oldest item of `tenant`, or of the next tenant; it goes to the end of the row.
        KeyError when nothing waits."""
        if tenant is None:
            tenant = next(iter(self._waiting), None)
            if tenant is None:
                raise KeyError("nothing waits")
        queue = self._waiting[tenant]
        item = queue.popleft()
        if queue:
            self._waiting.move_to_end(tenant)
        else:
            del self._waiting[tenant]
        return item

    def remove(self, tenant: Tenant, item: T) -> None:
        """Take back an item that waits no longer; nothing happens if it was taken."""
        queue = self._waiting.get(tenant)
        if queue is None or item not in queue:
            return
        queue.remove(item)
        if not queue:
            del self._waiting[tenant]


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the row of a bound; `granted` once the amount is the tenant's."""

    tenant: Tenant
    amount: int
    granted: bool = False


class Shares:
    """Shares of one bound that tenants hold, and the row of those who wait for one."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.total = 0
        self._held: dict[Tenant, int] = {}
        self._rows: Rounds[Ticket] = Rounds()

    def held(self, tenant: Tenant) -> int:
        return self._held.get(tenant, 0)

    def tenants(self) -> Iterator[tuple[Tenant, int]]:
        return iter(self._held.items())

    def take(self, tenant: Tenant, amount: int = 1) -> bool:
        """Hold `amount` more, or False."""
        if not self._fits(tenant, amount) or self.total + amount > self.bound.total:
            return False
        self.add(tenant, amount)
        return True

    def ask(self, tenant: Tenant, amount: int = 1) -> Ticket:
        """Hold `amount` now or when it is this tenant's turn (`settle`). More than one tenant's
        share counts as the whole share."""
        ticket = Ticket(tenant, min(amount, self.bound.each))
        self._rows.push(tenant, ticket)
        self.settle()  # whoever else could be granted was granted before
        return ticket

    def settle(self) -> list[Ticket]:
        """Grant what fits by now; the tickets that were granted, in order.

        A tenant at its own bound is passed over. One that only the total stops keeps its place and
        stops those behind it, or a large amount would wait for ever while small ones pass.
        """
        granted: list[Ticket] = []
        while (ticket := self._next()) is not None:
            if self.total + ticket.amount > self.bound.total:
                break
            self._rows.pop(ticket.tenant)
            self.add(ticket.tenant, ticket.amount)
            ticket.granted = True
            granted.append(ticket)
        return granted

    def _next(self) -> Ticket | None:
        for tenant in self._rows.tenants():
            ticket = self._rows.head(tenant)
            if self._fits(tenant, ticket.amount):
                return ticket
        return None

    def give(self, tenant: Tenant, amount: int = 1) -> None:
        left = self._held.get(tenant, 0) - amount
        if left < 0:
            raise ValueError(f"{tenant} gives back more of {self.bound} than it has")
        self.total -= amount
        if left:
            self._held[tenant] = left
        else:
            self._held.pop(tenant, None)

    def withdraw(self, ticket: Ticket) -> None:
        """Give up a ticket, granted or not."""
        if ticket.granted:
            self.give(ticket.tenant, ticket.amount)
        else:
            self._rows.remove(ticket.tenant, ticket)

    def _fits(self, tenant: Tenant, amount: int) -> bool:
        return self._held.get(tenant, 0) + amount <= self.bound.each

    def add(self, tenant: Tenant, amount: int = 1) -> None:
        """Hold `amount` more, whatever the bound is: it is looked after elsewhere."""
        if amount == 0:
            return
        self._held[tenant] = self._held.get(tenant, 0) + amount
        self.total += amount


class Paces:
    """Debts of tenants under one pace: each pays back `per_s`, and may owe nothing to go on."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._debts: OrderedDict[Tenant, tuple[float, float]] = OrderedDict()  # debt, at

    def spend(self, tenant: Tenant, amount: float, now_s: float) -> float:
        """Add to the debt; seconds until this tenant may go on (0.0: at once)."""
        debt = self.debt(tenant, now_s) + amount
        self._debts[tenant] = (debt, now_s)
        self._debts.move_to_end(tenant)
        if len(self._debts) > PACED_TENANTS_MAX:
            self._debts.popitem(last=False)
        return max(0.0, (debt - self.pace.burst) / self.pace.per_s)

    def allow(self, tenant: Tenant, now_s: float) -> bool:
        """Spend one if there is one to spend."""
        if self.debt(tenant, now_s) + 1 > self.pace.burst:
            return False
        self.spend(tenant, 1, now_s)
        return True

    def wait_s(self, tenant: Tenant, now_s: float) -> float:
        """Seconds until this tenant may go on; nothing is spent."""
        return max(0.0, (self.debt(tenant, now_s) - self.pace.burst) / self.pace.per_s)

    def debt(self, tenant: Tenant, now_s: float) -> float:
        debt, at_s = self._debts.get(tenant, (0.0, now_s))
        return max(0.0, debt - max(0.0, now_s - at_s) * self.pace.per_s)
