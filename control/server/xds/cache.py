"""Every resource serialised once, ready to be spliced into any number of responses.

`update()` compares model values first, so a change of one pod encodes one message, not all. The
cache knows names, versions and bytes; it knows no client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from control.model.address import format_address
from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy
from control.model.workload import NetworkAddress, Service, Workload
from control.server.compile.mesh import CompiledMesh
from control.server.xds.index import Index
from control.server.xds.resource import CachedResource, make_entry
from control.server.xds.shelf import Shelf
from control.wire.convert import resource_to_wire
from control.wire.convert_node import encode_intent, encode_namespace
from control.wire.convert_policy import policy_to_wire
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

Change: TypeAlias = Mapping[str, frozenset[str]]  # type URL → names that changed or went

SHELVES_MIN = 64  # shelves of nodes; fewer are not worth looking for those that nobody needs


class Cache:
    """`revision` counts the changes that somebody has to hear of."""

    def __init__(self) -> None:
        self.revision = 0
        self._entries: dict[str, dict[str, CachedResource]] = {POD_TYPE: {}}
        self._values: dict[str, dict[str, Any]] = {}
        self._shelves: dict[str, Shelf] = {}  # shown to all
        self._of_nodes: dict[str, Shelf] = {}  # pods by node
        self._sweep_at = SHELVES_MIN
        self._index: Index | None = None
        for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE):
            self._shelves[url] = Shelf(url)
            self._entries[url] = self._shelves[url].entries
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

    def update(self, mesh: CompiledMesh) -> Change:
        """Take over a new mesh; what differs from the last one, by type."""
        addresses: dict[str, Workload | Service] = {**mesh.workloads, **mesh.services}
        self.revision += 1
        return _change(
            {
                AUTHORIZATION_TYPE: self._replace(AUTHORIZATION_TYPE, mesh.policies),
                ADDRESS_TYPE: self._replace(ADDRESS_TYPE, addresses),
                POD_TYPE: self._replace(POD_TYPE, mesh.pods),
                NAMESPACE_TYPE: self._replace(NAMESPACE_TYPE, mesh.namespaces),
            }
        )

    def update_workloads(self, changed: Mapping[str, Workload | None]) -> Change:
        """Take over some workloads of the mesh, by name; None: it is gone. Costs what they cost,
        not the rest."""
        self.revision += 1
        values = self._values[ADDRESS_TYPE]
        names = set()
        for name, value in changed.items():
            if value is None:
                if name in values:
                    self._remove(ADDRESS_TYPE, name)
                    names.add(name)
            elif values.get(name) != value and self._put(ADDRESS_TYPE, name, value):
                names.add(name)
        return _change({ADDRESS_TYPE: names})

    def _replace(self, type_url: str, values: Mapping[str, Any]) -> set[str]:
        old = self._values[type_url]
        changed = set()
        for name in old.keys() - values.keys():
            self._remove(type_url, name)
            changed.add(name)
        for name, value in values.items():
            known = old.get(name)
            if known is value or known == value:
                continue
            if self._put(type_url, name, value):
                changed.add(name)
        return changed

    def _remove(self, type_url: str, name: str) -> None:
        value, entry = self._values[type_url].pop(name), self._entries[type_url][name]
        if type_url == ADDRESS_TYPE and self._index is not None:
            self._index.remove(name, value, entry)
        self.shelf(type_url, entry.node).remove(name, self.revision)
        if type_url == POD_TYPE:
            del self._entries[POD_TYPE][name]

    def _put(self, type_url: str, name: str, value: Any) -> bool:
        """True if clients have to hear of it."""
        entry, known = _ENCODERS[type_url](name, value), self._entries[type_url].get(name)
        if type_url == ADDRESS_TYPE and self._index is not None:
            if known is not None:
                self._index.remove(name, self._values[type_url][name], known)
            self._index.add(name, value, entry)
        self._values[type_url][name] = value
        if known is not None and known.node != entry.node:
            self.shelf(type_url, known.node).remove(name, self.revision)
        self.shelf(type_url, entry.node).put(entry, self.revision)
        if type_url == POD_TYPE:
            self._entries[POD_TYPE][name] = entry
        return known is None or known.version != entry.version or known.node != entry.node

    def resolve(self, asked: str) -> tuple[str, ...]:
        """The addresses that answer an on-demand name: itself, its owner, its endpoints."""
        index = self.index()
        if asked in self._entries[ADDRESS_TYPE]:
            return (asked, *index.members.get(asked, ()))
        found: dict[str, None] = {}
        for name in index.aliases.get(asked, ()):
            found[name] = None
            found.update(dict.fromkeys(index.members.get(name, ())))
        return tuple(found)

    def index(self) -> Index:
        """Made when somebody first asks by name, and kept up from then on."""
        if self._index is None:
            self._index = Index(self._values[ADDRESS_TYPE], self._entries[ADDRESS_TYPE])
        return self._index


def _change(names: Mapping[str, set[str]]) -> Change:
    return {url: frozenset(each) for url, each in names.items() if each}


def _policy_entry(name: str, value: Policy) -> CachedResource:
    message = policy_to_wire(value).SerializeToString(deterministic=True)
    return make_entry(AUTHORIZATION_TYPE, name, message)


def _address_entry(name: str, value: Workload | Service) -> CachedResource:
    message = resource_to_wire(value).SerializeToString(deterministic=True)
    return make_entry(ADDRESS_TYPE, name, message, _aliases(value))


def _aliases(value: Workload | Service) -> tuple[str, ...]:
    if isinstance(value, Workload):
        return tuple(f"{value.network}/{format_address(each)}" for each in value.addresses)
    return tuple(_vip_alias(each) for each in value.addresses)


def _vip_alias(vip: NetworkAddress) -> str:
    text = f"{vip.network}/{format_address(vip.address)}"
    return text if vip.length is None else f"{text}/{vip.length}"


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
