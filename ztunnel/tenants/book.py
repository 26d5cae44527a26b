"""The tenants of one worker, and everything that they share. Forgets those that hold nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from control.model.address import Address
from control.model.identity import SpiffeId
from ztunnel.tenants.account import Account
from ztunnel.tenants.bounds import (
    ARRIVALS,
    CONNECTIONS,
    FAREWELLS,
    HANDSHAKES,
    IDLE_TUNNELS,
    QUEUED_BYTES,
    TUNNELS,
    arrivals_allowed,
    connections_allowed,
    farewells_allowed,
    handshakes_allowed,
    idle_tunnels_allowed,
    tunnels_allowed,
)
from ztunnel.tenants.portions import Portions
from ztunnel.tenants.seats import Seats
from ztunnel.tenants.tenancy import Kind, Tenancy, source_name
from ztunnel.tenants.work import Work

# Peers, and sources, that are remembered, at some 600 bytes each. Pods are bounded by the node.
TENANTS_MAX: Final = 4096
# Those looked at, oldest first, to find one that can be forgotten.
_LOOKED_AT_MAX: Final = 32
_CROWD: Final = "crowd"


class Tenants:
    def __init__(self, descriptors: int) -> None:
        """`descriptors`: files that this process may have open."""
        self.connections: Final = Portions(CONNECTIONS, connections_allowed(descriptors))
        self.tunnels: Final = Portions(TUNNELS, tunnels_allowed(descriptors))
        # The items are those who own the tunnel or the handshake.
        self.handshakes: Final[Seats[Any]] = Seats(HANDSHAKES, handshakes_allowed(descriptors))
        self.idle: Final[Seats[Any]] = Seats(IDLE_TUNNELS, idle_tunnels_allowed(descriptors))
        # Each has its socket; the items are those of the listeners.
        self.arrivals: Final[Seats[Any]] = Seats(ARRIVALS, arrivals_allowed(descriptors))
        self.queued: Final = Portions(QUEUED_BYTES)
        self.farewells: Final = Portions(FAREWELLS, farewells_allowed(descriptors))
        self.work: Final = Work()
        self._peers: OrderedDict[SpiffeId, Tenancy] = OrderedDict()
        self._sources: OrderedDict[str, Tenancy] = OrderedDict()
        # When there are too many to remember, and all are busy, new ones count as one. They also
        # stand for those that were forgotten.
        self._crowds: Final = (Tenancy(Kind.PEER, _CROWD), Tenancy(Kind.SOURCE, _CROWD))

    def account(self, tenant: Tenancy) -> Account:
        return Account(self.queued, tenant, self.farewells)

    def peer(self, identity: SpiffeId) -> Tenancy:
        found = self._peers.get(identity)
        if found is not None:
            self._peers.move_to_end(identity)
            return found
        if not _has_room(self._peers, self._crowds[0]):
            return self._crowds[0]
        made = self._peers[identity] = Tenancy(Kind.PEER, str(identity))
        return made

    def source(self, address: Address) -> Tenancy:
        name = source_name(address)
        found = self._sources.get(name)
        if found is not None:
            self._sources.move_to_end(name)
            return found
        if not _has_room(self._sources, self._crowds[1]):
            return self._crowds[1]
        made = self._sources[name] = Tenancy(Kind.SOURCE, name)
        return made

    def strangers(self) -> Iterator[Tenancy]:
        """All that are remembered, but pods."""
        yield from self._peers.values()
        yield from self._sources.values()
        yield from self._crowds


def _has_room(table: OrderedDict[Any, Tenancy], crowd: Tenancy) -> bool:
    """Forget the one that was quiet for longest, if there are too many; the crowd's figures have
    what it did."""
    if len(table) < TENANTS_MAX:
        return True
    for _, key in zip(range(_LOOKED_AT_MAX), list(table), strict=False):
        if table[key].idle:
            crowd.inherit(table.pop(key))
            return True
        table.move_to_end(key)
    return False
