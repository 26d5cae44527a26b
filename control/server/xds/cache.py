"""Every resource serialised once, ready to be spliced into any number of responses.

A change of one pod encodes one message, not all. The cache knows names, versions and bytes; it
knows no client.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias

from control.kit.slices import done
from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy
from control.model.workload import Service, Workload
from control.server.compile.delta import MeshDelta
from control.server.xds.buckets import Buckets
from control.server.xds.index import Index
from control.server.xds.resource import CachedResource, make_entry
from control.server.xds.shelf import Shelf
from control.wire.address_bytes import encode_address
from control.wire.convert_node import encode_intent, encode_namespace
from control.wire.convert_policy import policy_to_wire
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

# Type URL → names that changed or went; good until all were told.
Change: TypeAlias = Mapping[str, set[str]]

SHELVES_MIN = 64  # shelves of nodes; fewer are not worth looking for those that nobody needs


class Cache:
    """`revision` counts the changes that somebody has to hear of."""

    def __init__(self) -> None:
        self.revision = 0
        self._entries: dict[str, dict[str, CachedResource]] = {POD_TYPE: {}}
        self._values: dict[str, dict[str, Any]] = {}
        self._shelves: dict[str, Shelf] = {}  # shown to all
        self._of_nodes: dict[str, Shelf] = {}  # pods by node
        self._sums: list[Buckets] = []  # those of a whole mesh are no work for one moment
        self._sweep_at = SHELVES_MIN
        self._index: Index | None = None
        self._unindexed: dict[str, None] = {}  # addresses that are still to be put in
        self._touched: dict[Shelf, None] = {}  # by the change that is being shown
        self._encoded: list[tuple[str, str, Any, CachedResource | None]] = []
        for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE):
            self._shelves[url] = Shelf(url)
            self._entries[url] = self._shelves[url].entries
            self._sums.append(self._shelves[url].buckets)
        self._values = {url: {} for url in self._entries}

    @property
    def types(self) -> frozenset[str]:
        return frozenset(self._entries)

    def entries(self, type_url: str) -> Mapping[str, CachedResource]:
        return self._entries[type_url]

    def shelf(self, type_url: str, node: str) -> Shelf:
        """Resources of one type that a node is shown."""
        if type_url != POD_TYPE:
            return self._shelves[type_url]
        found = self._of_nodes.get(node)
        if found is None:
            self._sweep()
            found = self._of_nodes[node] = Shelf(POD_TYPE)
        return found

    def _sweep(self) -> None:
        """Forget the shelves of nodes that are gone."""
        if len(self._of_nodes) < self._sweep_at:
            return
        kept = {node: each for node, each in self._of_nodes.items() if each.entries or each.places}
        self._of_nodes, self._sweep_at = kept, max(SHELVES_MIN, 2 * len(kept))

    def steps(self, delta: MeshDelta) -> Iterator[None]:
        """Encode what differs, one resource a step; nobody sees it before `commit`."""
        for type_url, changed in (
            (AUTHORIZATION_TYPE, delta.policies),
            (ADDRESS_TYPE, delta.workloads),
            (ADDRESS_TYPE, delta.services),
            (POD_TYPE, delta.pods),
            (NAMESPACE_TYPE, delta.namespaces),
        ):
            encode = _ENCODERS[type_url]
            for name, value in changed.items():
                entry = None if value is None else encode(name, value)
                self._encoded.append((type_url, name, value, entry))
                yield

    def commit(self) -> Generator[None, None, Change]:
        """Show what was encoded, one resource a step: nobody may look before the last. Returns the
        names that clients have to hear of, by type."""
        encoded, self._encoded = self._encoded, []
        self.revision += 1
        change: dict[str, set[str]] = defaultdict(set)
        encoded.reverse()
        while encoded:  # what nobody has any more goes with its step
            type_url, name, value, entry = encoded.pop()
            if entry is not None:
                is_news = self._put(type_url, name, value, entry)
            else:
                is_news = self._remove(type_url, name)
            if is_news:
                change[type_url].add(name)
            yield
        for buckets in self._sums:
            yield from buckets.steps()
        touched, self._touched = self._touched, {}
        for shelf in touched:
            yield from shelf.settle()
            yield
        return change

    def apply(self, delta: MeshDelta) -> Change:
        """Both, at once."""
        for _ in self.steps(delta):
            pass
        return done(self.commit())

    def _remove(self, type_url: str, name: str) -> bool:
        """True if clients have to hear of it."""
        value, entry = self._values[type_url].pop(name, None), self._entries[type_url].get(name)
        if entry is None:
            return False
        if type_url == ADDRESS_TYPE:
            self._reindex(name, value, None)
        self._touch(type_url, entry.node).remove(name, self.revision)
        if type_url == POD_TYPE:
            del self._entries[POD_TYPE][name]
        return True

    def _put(self, type_url: str, name: str, value: Any, entry: CachedResource) -> bool:
        """True if clients have to hear of it."""
        known = self._entries[type_url].get(name)
        if type_url == ADDRESS_TYPE:
            self._reindex(name, self._values[type_url].get(name), value)
        self._values[type_url][name] = value
        if known is not None and known.node != entry.node:
            self._touch(type_url, known.node).remove(name, self.revision)
        self._touch(type_url, entry.node).put(entry, self.revision)
        if type_url == POD_TYPE:
            self._entries[POD_TYPE][name] = entry
        return known is None or known.version != entry.version or known.node != entry.node

    def _touch(self, type_url: str, node: str) -> Shelf:
        shelf = self.shelf(type_url, node)
        self._touched[shelf] = None
        return shelf

    def resolve(self, asked: str) -> tuple[str, ...]:
        """The addresses that answer an on-demand name: itself, its owner, its endpoints."""
        found: dict[str, None] = {}
        for name in self.owners(asked):
            found[name] = None
            found.update(dict.fromkeys(self.index().members.get(name, ())))
        return tuple(found)

    def owners(self, asked: str) -> tuple[str, ...]:
        """The same without endpoints."""
        return (asked,) if asked in self._entries[ADDRESS_TYPE] else self.index().at(asked)

    def address(self, name: str) -> Workload | Service | None:
        found: Workload | Service | None = self._values[ADDRESS_TYPE].get(name)
        return found

    def own(self, node: str) -> set[str]:
        """The workloads of a node, and the services that they are endpoints of."""
        values = self._values[ADDRESS_TYPE]
        found = set(self.index().on_node.get(node, ()))
        for name in tuple(found):
            found.update(key for key in values[name].services if key in values)
        return found

    def index(self) -> Index:
        """Made when somebody first asks by name, and kept up from then on."""
        for _ in self.index_steps():
            pass
        assert self._index is not None
        return self._index

    @property
    def has_index(self) -> bool:
        return self._index is not None and not self._unindexed

    def index_steps(self) -> Iterator[None]:
        """Make the index, one resource a step. Several may do that by turns, and resources may
        change meanwhile."""
        values = self._values[ADDRESS_TYPE]
        if self._index is None:
            self._index, self._unindexed = Index(), dict.fromkeys(values)
        while self._unindexed:
            name, _ = self._unindexed.popitem()
            self._index.add(name, values[name])
            yield

    def _reindex(self, name: str, before: Any, after: Any) -> None:
        """An address is another one; None: it is not there."""
        if self._index is None:
            return
        if name in self._unindexed:
            if after is None:
                del self._unindexed[name]
            return
        if before is not None:
            self._index.remove(name, before)
        if after is not None:
            self._index.add(name, after)


def _policy_entry(name: str, value: Policy) -> CachedResource:
    message = policy_to_wire(value).SerializeToString(deterministic=True)
    return make_entry(AUTHORIZATION_TYPE, name, message)


def _address_entry(name: str, value: Workload | Service) -> CachedResource:
    return make_entry(ADDRESS_TYPE, name, encode_address(value), value)


def _pod_entry(name: str, value: Intent) -> CachedResource:
    return make_entry(POD_TYPE, name, encode_intent(value), node=value.node)


def _namespace_entry(name: str, value: NamespaceIntent) -> CachedResource:
    return make_entry(NAMESPACE_TYPE, name, encode_namespace(value))


_ENCODERS: Mapping[str, Callable[[str, Any], CachedResource]] = {
    AUTHORIZATION_TYPE: _policy_entry,
    ADDRESS_TYPE: _address_entry,
    POD_TYPE: _pod_entry,
    NAMESPACE_TYPE: _namespace_entry,
}
