"""A client that asks for addresses by name, and is shown what answers these names.

Costs what it asks for: a change of a pod that none of its names leads to is one look. Its names are
resolved again after a change of what they lead to, when something can be sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import ClassVar

from control.model.workload import Service
from control.server.callers.refusals import CallRefusal
from control.server.xds.cache import Cache
from control.server.xds.difference import RESPONSE_BYTES_MAX
from control.server.xds.names import BadRequest, KeptNames
from control.server.xds.resource import CachedResource, alias_of
from control.server.xds.response import Encode, encode, fitted
from control.server.xds.shelf import FOREIGN, OLD
from control.server.xds.subscription import Due
from control.wire.types import ADDRESS_TYPE

ASKED_MAX = 65536  # names one client may subscribe to; as many as our own client sends
CHEAP_MAX = 256  # names
LOOKED_AT_MAX = 64  # names that changed at once; for more, all that is asked for is resolved again


class Picker:
    wildcard: ClassVar[bool] = False

    def __init__(
        self,
        cache: Cache,
        node: str,
        names: KeptNames,
        asked: set[str],
        response_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> None:
        self._cache = cache
        self._node = node
        self._names = names
        self._response_bytes_max = response_bytes_max
        self.asked = asked
        self.known: dict[str, str] = {}  # name → version that the client was sent
        self.dirty: set[str] = set()  # names to look at for the next response
        self.owed: set[str] = set()  # asked names that must be answered
        self.wanted: set[str] = set()  # resources that `asked` resolves to
        self.stale = False  # the cache has changed since `wanted` was resolved
        self._owners: set[str] = set()  # those of `wanted` that a name leads to by itself
        self._own: set[str] = set()  # and those that are wanted unasked

    @property
    def _entries(self) -> Mapping[str, CachedResource]:
        return self._cache.entries(ADDRESS_TYPE)

    def take_over(self, held: Mapping[str, str]) -> None:
        """The client holds these already, by name and version."""
        for name, version in held.items():
            entry = self._entries.get(name)
            if entry is not None:
                self.known[entry.name] = entry.version if version == entry.version else OLD
            else:
                self._names.keep(name)
                self.known[name] = FOREIGN

    def begin(self, subscribed: set[str], returned: set[str], *, is_all: bool = False) -> None:
        """The first request. A returning client has asked before for all that it holds, unless it
        says that it names all."""
        held = set() if is_all else self.known.keys()
        self._ask((subscribed | held) - returned)
        for name in subscribed & self.asked:
            if not self._holds(name):
                self.owed.add(name)
        self._want()

    def subscribe(self, subscribed: set[str], returned: set[str]) -> None:
        fresh = subscribed - returned
        self._ask(fresh)
        for name in returned & self.asked:
            self.asked.discard(name)
            self.owed.discard(name)
            self._names.release(name)
            self.stale = True
        self.owed |= fresh
        for name in fresh:  # asked again: answered again
            self._owners.update(self._cache.owners(name))
            for resolved in self._cache.resolve(name):
                self._forget(resolved)
                self.wanted.add(resolved)
                self.dirty.add(resolved)

    def _ask(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.asked:
                self._names.keep(name)
                self.asked.add(name)
        if len(self.asked) > ASKED_MAX:
            raise BadRequest(CallRefusal.TOO_MANY_NAMES, f"more than {ASKED_MAX} names subscribed")

    def _forget(self, name: str) -> None:
        """The client does not hold it any more."""
        if self.known.pop(name, None) == FOREIGN:
            self._names.release(name)

    def _holds(self, asked: str) -> bool:
        names = self._cache.resolve(asked)
        return bool(names) and all(self.known.get(n) == self._entries[n].version for n in names)

    def _want(self) -> None:
        """Resolve all subscribed names again. A node's own workloads are wanted unasked: its
        ztunnel waits for them before it serves a pod, and does not know their names; so are their
        services, by which inbound connections are named. What nobody wants any more is removed:
        the client cannot know which of its names led to it in this moment."""
        self._own = self._cache.own(self._node)
        wanted, owners = set(self._own), set[str]()
        for name in self.asked:
            owners.update(self._cache.owners(name))
            wanted.update(self._cache.resolve(name))
        self.wanted, self._owners, self.stale = wanted, owners, False
        self.dirty |= wanted | self.known.keys()

    def changed(self, names: Collection[str]) -> None:
        """Look at what has changed; if that may change where names lead, they are resolved again
        when something can be sent: once, whatever comes until then."""
        if self.stale or len(names) > LOOKED_AT_MAX:
            self.stale = True
            return
        for name in names:
            if not self._look_at(name):
                self.stale = True
                return

    def _look_at(self, name: str) -> bool:
        """Take in one change; False if it may concern others too: a service and its endpoints, a
        pod of this node and its services."""
        value = self._cache.address(name)
        if name in self._own or (value is None and name in self.wanted):
            return False
        if value is None:
            return True
        if isinstance(value, Service):
            if any(each.length is not None for each in value.addresses):
                return False
            aliases = [alias_of(each.network, each.address) for each in value.addresses]
            aliases += [alias_of(each.network, each.address) for each in value.outer_addresses]
            return name not in self.wanted and self.asked.isdisjoint((name, *aliases))
        if value.node == self._node:
            return False
        aliases = [alias_of(value.network, each) for each in value.addresses]
        if self.asked.isdisjoint((name, *aliases)):
            self._owners.discard(name)
        else:
            self._owners.add(name)
        if name in self._owners or not self._owners.isdisjoint(value.services):
            self.wanted.add(name)
        elif name in self.wanted:
            self.wanted.discard(name)
        else:
            return True
        self.dirty.add(name)
        return True

    @property
    def has_news(self) -> bool:
        return bool(self.stale or self.dirty or self.owed)

    @property
    def must_answer(self) -> bool:
        return bool(self.owed)

    @property
    def held_count(self) -> int:
        return len(self.known)

    @property
    def pending_count(self) -> int:
        return len(self.dirty)

    def held(self) -> Mapping[str, str]:
        return self.known

    def due(self) -> Due:
        return Due(*self._due())

    def _due(self) -> tuple[list[CachedResource], list[str]]:
        """Differences between cache and client. Names without one are no longer dirty."""
        if self.stale:
            self._want()
        added, removed = [], []
        for name in sorted(self.dirty):
            entry = self._entries.get(name) if name in self.wanted else None
            if entry is None and name in self.known:
                removed.append(name)
            elif entry is not None and self.known.get(name) != entry.version:
                added.append(entry)
            else:
                self.dirty.discard(name)
        if not self.dirty:
            self.dirty = set()  # an emptied one keeps the room of all it has ever held
        return added, removed

    def estimate_bytes(self) -> int:
        """About the size of the next response, before anything is built."""
        count = len(self.wanted | self.dirty) if self.stale else len(self.dirty)
        average = self._cache.shelf(ADDRESS_TYPE, self._node).average_bytes
        return min(count * average, self._response_bytes_max)

    @property
    def is_cheap(self) -> bool:
        """True if building a small response takes no time worth a turn: few names are to be
        resolved, and few looked at."""
        resolved = len(self.asked) + len(self.wanted) if self.stale else 0
        return resolved + len(self.dirty) + len(self.owed) < CHEAP_MAX

    def take(self, *, with_removed: bool) -> Encode:
        """The client is told as much as fits into a response."""
        added, removed = self._due()
        framed = (entry.framed_with_aliases() for entry in added)
        pieces = fitted(framed, self._response_bytes_max)
        for entry in added[: len(pieces)]:  # the rest stays dirty
            self._forget(entry.name)
            self.known[entry.name] = entry.version
            self.dirty.discard(entry.name)
        for name in removed:
            self._forget(name)
            self.dirty.discard(name)
        if len(pieces) == len(added):
            removed = removed + sorted(self._answered_as_removed() - set(removed))
            self.owed.clear()
        return partial(encode, ADDRESS_TYPE, pieces=pieces, removed=removed)

    def _answered_as_removed(self) -> set[str]:
        """Owed names that no resource bears: nothing has them, or somebody has them as an alias.

        Istio's ztunnel wakes a waiting connection by the very name it asked for, which it finds
        among the resources' names and the removed ones; it reads no aliases. It takes the resources
        in first, and a removed name that none of them bears removes nothing.
        """
        return {each for each in self.owed if each not in self._entries}  # not as large as the mesh

    def close(self) -> None:
        for name, version in self.known.items():
            if version == FOREIGN:
                self._names.release(name)
