"""Places for connections to a page's door. Pure.

A newcomer always finds a place: over the bound of its own address, of its network, or of all, the
oldest connection of whoever has most of its share there goes, those first that wait for nothing of
ours. So an address displaces itself only, and a probe from another one is served beside it. A
network is an IPv6 /64: pods of a node commonly share one, but a stranger may have all of one.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Source:
    address: str
    network: str  # the same for IPv4


@lru_cache(1024)  # 10 µs that a flood would cost us each time
def source_of(host: str) -> Source:
    """The source of a connection; a v4-mapped address is its IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Source(UNKNOWN, UNKNOWN)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.IPv6Network((address, 64), strict=False)
            return Source(str(address), str(network))
        address = address.ipv4_mapped
    return Source(str(address), str(address))


@dataclass(slots=True, eq=False)
class Seat:
    """One connection; `busy` while its answer is made or sent."""

    source: Source
    busy: bool = False


Taken = dict[Seat, None]  # in order of arrival


@dataclass(slots=True)
class DoorSeats:
    each: int  # from one address
    network: int  # from one network
    total: int
    patient: bool = False  # those who are being answered stay, and a newcomer may find no place
    _by_network: dict[str, dict[str, Taken]] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)  # by network
    _taken: int = 0

    def __len__(self) -> int:
        return self._taken

    def held(self, source: Source) -> int:
        return len(self._by_network.get(source.network, {}).get(source.address, ()))

    def take(self, seat: Seat) -> Seat | None:
        """The seat that has to go: None, another one, or the newcomer itself."""
        crowd = self._crowd(seat.source)
        if crowd is not None:
            victim = self._oldest(crowd)
            if victim is None:
                return seat
            self.leave(victim)
            self._add(seat)
            return victim
        self._add(seat)
        return None

    def _crowd(self, source: Source) -> Taken | None:
        """Seats of the address that has to give one up for a newcomer; None: there is room."""
        own = self._by_network.get(source.network, {})
        if self.held(source) >= self.each:
            return own[source.address]
        if self._held.get(source.network, 0) >= self.network:
            return max(own.values(), key=len)
        if self._taken >= self.total:
            heaviest = max(self._by_network, key=self._weight)
            return max(self._by_network[heaviest].values(), key=len)
        return None

    def _weight(self, network: str) -> float:
        """Its share of what one address, or one network, may have; the larger of both."""
        most = max(map(len, self._by_network[network].values()))
        return max(most / self.each, self._held[network] / self.network)

    def _add(self, seat: Seat) -> None:
        at = seat.source
        self._by_network.setdefault(at.network, {}).setdefault(at.address, {})[seat] = None
        self._held[at.network] = self._held.get(at.network, 0) + 1
        self._taken += 1

    def leave(self, seat: Seat) -> None:
        """Give the place back; nothing happens if it was taken away."""
        at = seat.source
        network = self._by_network.get(at.network, {})
        own = network.get(at.address, {})
        if seat not in own:
            return
        del own[seat]
        self._taken -= 1
        self._held[at.network] -= 1
        if not own:
            del network[at.address]
        if not network:
            del self._by_network[at.network], self._held[at.network]

    def _oldest(self, seats: Taken) -> Seat | None:
        idle = next((each for each in seats if not each.busy), None)
        if idle is not None or self.patient:
            return idle
        return next(iter(seats))
