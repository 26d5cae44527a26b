"""Shelves by type with all that a waypoint is told: one rack a waypoint.

A rack outlives its waypoint for as long as a stream looks at it: one that comes back under the same
name has the same rack, so no stream is left with shelves that nobody fills.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TypeAlias
from weakref import WeakValueDictionary

from control.model.identity import SpiffeId
from control.model.route import WaypointDelta, WaypointKey
from control.server.xds.cache import Change
from control.server.xds.resource import CachedResource, make_entry
from control.server.xds.shelf import Shelf
from control.server.xds.unencoded import Unencoded
from control.wire.types import KINDS_OF_ENVOY

# By type and name; None: gone.
Encoded: TypeAlias = Mapping[str, Mapping[str, bytes | None]]


# For one waypoint: its difference → those of its resources. It remembers what there is.
Encoder: TypeAlias = Callable[[WaypointDelta], Encoded]
_Encoded: TypeAlias = tuple[str, str, CachedResource | None]  # type, name


def envoy_encoder() -> Encoder:
    """Loaded for the first waypoint: a mesh without one pays nothing for it."""
    from control.server.envoy import resources

    known = resources.KnownResources()
    return lambda delta: resources.of(delta, known)


class Rack:
    def __init__(self) -> None:
        self.shelves = {url: Shelf(url) for url in KINDS_OF_ENVOY}

    def clear(self) -> Iterator[tuple[str, str, None]]:
        """Everything on it, as gone."""
        for url, shelf in self.shelves.items():
            yield from ((url, name, None) for name in shelf.entries)


class Racks:
    """`encoder()` makes one for a new waypoint; it is first called for one that there is."""

    def __init__(self, encoder: Callable[[], Encoder]) -> None:
        self._make_encoder = encoder
        self._racks: dict[WaypointKey, Rack] = {}
        self._looked_at: WeakValueDictionary[WaypointKey, Rack] = WeakValueDictionary()
        self._encoders: dict[WaypointKey, Encoder] = {}
        self._unencoded = Unencoded()
        # Not shown yet; no account: gone.
        self._encoded: dict[WaypointKey, list[_Encoded]] = {}
        self._accounts: dict[WaypointKey, SpiffeId | None] = {}
        self.accounts: dict[WaypointKey, SpiffeId] = {}

    def __contains__(self, key: WaypointKey) -> bool:
        """True while there is such a waypoint."""
        return key in self.accounts

    def rack(self, key: WaypointKey) -> Rack:
        """Shelves of a waypoint, empty if there is none."""
        found = self._racks.get(key) or self._looked_at.get(key)
        if found is None:
            found = self._looked_at[key] = Rack()
        return found

    def count(self, type_url: str) -> int:
        """Resources of all waypoints."""
        return sum(len(each.shelves[type_url].entries) for each in self._racks.values())

    @property
    def has_more(self) -> bool:
        """True while the last publication did not take all."""
        return bool(self._unencoded)

    def steps(self, deltas: Iterable[WaypointDelta]) -> Iterator[None]:
        """Encode what differs, a front or a backend a step and so many a publication; nobody sees
        it before `commit`."""
        for delta in deltas:
            if delta.is_gone:
                self._remove(delta.key)
                yield
            else:
                self._unencoded.add(delta)
        for part in self._unencoded.take():
            key = part.key
            encoder = self._encoders.get(key)
            if encoder is None:
                encoder = self._encoders[key] = self._make_encoder()
            held = self._encoded.setdefault(key, [])
            for type_url, changed in encoder(part).items():
                for name, message in changed.items():
                    entry = None if message is None else make_entry(type_url, name, message)
                    held.append((type_url, name, entry))
            self._accounts[key] = part.account
            yield

    def _remove(self, key: WaypointKey) -> None:
        self._unencoded.drop(key)
        self._encoders.pop(key, None)
        self._encoded[key] = list(self.rack(key).clear())
        self._accounts[key] = None

    def _whole(self) -> dict[WaypointKey, list[_Encoded]]:
        """Encoded resources that may be shown. A new waypoint is shown whole: an Envoy that comes
        back to half of what it has would lose the rest."""
        encoded, self._encoded = self._encoded, {}
        for key in list(encoded):
            if key not in self.accounts and key in self._unencoded:
                self._encoded[key] = encoded.pop(key)
        return encoded

    def commit(self, revision: int) -> Generator[None, None, Mapping[WaypointKey, Change]]:
        """Show what was encoded, one resource a step: nobody may look before the last. Returns the
        names that each waypoint's clients have to hear of."""
        encoded = self._whole()
        accounts = {key: self._accounts.pop(key) for key in encoded}
        for key, account in accounts.items():
            if account is not None:
                self.accounts[key] = account
                self._racks[key] = self._looked_at[key] = self.rack(key)
        changed: dict[WaypointKey, dict[str, set[str]]] = {}
        shown = ((key, *each) for key, all_of_it in encoded.items() for each in all_of_it)
        for key, type_url, name, entry in shown:
            shelf = self.rack(key).shelves[type_url]
            known = shelf.entries.get(name)
            if entry is not None:
                shelf.put(entry, revision)
                is_news = known is None or known.version != entry.version
            else:
                is_news = known is not None
                if is_news:
                    shelf.remove(name, revision)
            if is_news:
                changed.setdefault(key, {}).setdefault(type_url, set()).add(name)
            yield
        for key, account in accounts.items():
            if account is None:
                self.accounts.pop(key, None)
                self._racks.pop(key, None)
        return changed
