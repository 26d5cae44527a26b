"""Places for connections to a page's door. Pure.

A newcomer always finds a place: over the bound of its own source, or of all, the oldest connection
of the source that has most goes, those first that wait for nothing of ours. So one source displaces
itself only, and a probe from another address is served beside it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

UNKNOWN = "unknown"


def source_of(host: str) -> str:
    """The source of a connection: an IPv4 address, or an IPv6 /64, since a host commonly has a
    whole one to itself. A v4-mapped address is its IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


@dataclass(slots=True, eq=False)
class Seat:
    """One connection; `busy` while its answer is made or sent."""

    source: str
    busy: bool = False


@dataclass(slots=True)
class DoorSeats:
    each: int
    total: int
    patient: bool = False  # those who are being answered stay, and a newcomer may find no place
    _by_source: dict[str, dict[Seat, None]] = field(default_factory=dict)  # in order of arrival
    _taken: int = 0

    def __len__(self) -> int:
        return self._taken

    def held(self, source: str) -> int:
        return len(self._by_source.get(source, ()))

    def take(self, seat: Seat) -> Seat | None:
        """The seat that has to go: None, another one, or the newcomer itself."""
        own = self._by_source.get(seat.source, {})
        victim: Seat | None = None
        if len(own) >= self.each:
            victim = self._oldest(own)
        elif self._taken >= self.total:
            victim = self._oldest(max(self._by_source.values(), key=len))
        else:
            self._add(seat)
            return None
        if victim is None:
            return seat
        self.leave(victim)
        self._add(seat)
        return victim

    def _add(self, seat: Seat) -> None:
        self._by_source.setdefault(seat.source, {})[seat] = None
        self._taken += 1

    def leave(self, seat: Seat) -> None:
        """Give the place back; nothing happens if it was taken away."""
        own = self._by_source.get(seat.source)
        if own is None or seat not in own:
            return
        del own[seat]
        self._taken -= 1
        if not own:
            del self._by_source[seat.source]

    def _oldest(self, seats: dict[Seat, None]) -> Seat | None:
        idle = next((each for each in seats if not each.busy), None)
        if idle is not None or self.patient:
            return idle
        return next(iter(seats))
