"""Every resource serialised once, ready to be spliced into any number of responses.

`update()` compares model values first, so a change of one pod encodes one message, not all. The
cache knows names, versions and bytes; it knows no client.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.any_pb2 import Any as AnyMessage

from control.model.address import format_address
from control.model.intent import Intent, NamespaceIntent
from control.model.policy import Policy
from control.model.workload import NetworkAddress, Service, Workload
from control.server.compile.mesh import CompiledMesh
from control.wire import discovery_pb2
from control.wire.convert import resource_to_wire
from control.wire.convert_node import encode_intent, encode_namespace
from control.wire.convert_policy import policy_to_wire
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, NAMESPACE_TYPE, POD_TYPE

RESOURCES_FIELD = 2  # DeltaDiscoveryResponse.resources
ALIASES_FIELD = 4  # Resource.aliases

Change: TypeAlias = Mapping[str, frozenset[str]]  # type URL → names that changed or went


@dataclass(frozen=True, slots=True, eq=False)
class CachedResource:
    """`framed` is the whole `resources` field of a response: tag, length, Resource."""

    name: str
    version: str
    framed: bytes
    body_offset: int
    aliases: tuple[str, ...] = ()
    node: str = ""  # set when only this node may see it

    def framed_with_aliases(self) -> bytes:
        if not self.aliases:
            return self.framed
        extra = b"".join(frame(ALIASES_FIELD, alias.encode()) for alias in self.aliases)
        return frame(RESOURCES_FIELD, self.framed[self.body_offset :] + extra)


def frame(field: int, payload: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    return bytes([field << 3 | 2]) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def make_entry(
    type_url: str, name: str, message: bytes, aliases: tuple[str, ...] = (), node: str = ""
) -> CachedResource:
    version = hashlib.blake2b(message, digest_size=8).hexdigest()
    body = discovery_pb2.Resource(
        name=name, version=version, resource=AnyMessage(type_url=type_url, value=message)
    ).SerializeToString()
    framed = frame(RESOURCES_FIELD, body)
    return CachedResource(name, version, framed, len(framed) - len(body), aliases, node)


@dataclass(frozen=True, slots=True)
class Index:
    """Tables for on-demand clients: `network/ip`, a service to its endpoints, a node to its
    workloads."""

    aliases: Mapping[str, tuple[str, ...]]
    members: Mapping[str, tuple[str, ...]]
    on_node: Mapping[str, tuple[str, ...]]


class Cache:
    def __init__(self) -> None:
        self._entries: dict[str, dict[str, CachedResource]] = {
            ADDRESS_TYPE: {},
            AUTHORIZATION_TYPE: {},
            POD_TYPE: {},
            NAMESPACE_TYPE: {},
        }
        self._values: dict[str, dict[str, Any]] = {url: {} for url in self._entries}
        self._bytes = dict.fromkeys(self._entries, 0)
        self._index: Index | None = None
        self._versions: dict[str, dict[str, str]] = {}  # tables, until something changes

    @property
    def types(self) -> frozenset[str]:
        return frozenset(self._entries)

    def entries(self, type_url: str) -> Mapping[str, CachedResource]:
        return self._entries[type_url]

    def versions(self, type_url: str) -> Mapping[str, str]:
        """Names and versions as they are now, in a table that never changes."""
        table = self._versions.get(type_url)
        if table is None:
            entries = self._entries[type_url].values()
            table = self._versions[type_url] = {each.name: each.version for each in entries}
        return table

    def average_bytes(self, type_url: str) -> int:
        """Bytes of a response for one resource of this type, on average."""
        count = len(self._entries.get(type_url, ()))
        return self._bytes.get(type_url, 0) // count if count else 0

    def update(self, mesh: CompiledMesh) -> Change:
        """Take over a new mesh; what differs from the last one, by type."""
        addresses: dict[str, Workload | Service] = {**mesh.workloads, **mesh.services}
        change = {
            AUTHORIZATION_TYPE: self._replace(AUTHORIZATION_TYPE, mesh.policies, _policy_entry),
            ADDRESS_TYPE: self._replace(ADDRESS_TYPE, addresses, _address_entry),
            POD_TYPE: self._replace(POD_TYPE, mesh.pods, _pod_entry),
            NAMESPACE_TYPE: self._replace(NAMESPACE_TYPE, mesh.namespaces, _namespace_entry),
        }
        if change[ADDRESS_TYPE]:
            self._index = None
        return {url: names for url, names in change.items() if names}

    def update_workloads(self, changed: Mapping[str, Workload | None]) -> Change:
        """Take over some workloads of the mesh, by name; None: it is gone. Costs what they cost,
        not the rest."""
        values = self._values[ADDRESS_TYPE]
        names = set()
        for name, value in changed.items():
            if value is None:
                if name in values:
                    self._remove(ADDRESS_TYPE, name)
                    names.add(name)
            elif values.get(name) != value and self._put(ADDRESS_TYPE, name, value, _address_entry):
                names.add(name)
        if not names:
            return {}
        self._index = None
        return {ADDRESS_TYPE: frozenset(names)}

    def _replace(
        self, type_url: str, values: Mapping[str, Any], encode: Callable[[str, Any], CachedResource]
    ) -> frozenset[str]:
        old = self._values[type_url]
        changed = set()
        for name in old.keys() - values.keys():
            self._remove(type_url, name)
            changed.add(name)
        for name, value in values.items():
            known = old.get(name)
            if known is value or known == value:
                continue
            if self._put(type_url, name, value, encode):
                changed.add(name)
        return frozenset(changed)

    def _remove(self, type_url: str, name: str) -> None:
        self._versions.pop(type_url, None)
        self._bytes[type_url] -= len(self._entries[type_url].pop(name).framed)
        del self._values[type_url][name]

    def _put(
        self, type_url: str, name: str, value: Any, encode: Callable[[str, Any], CachedResource]
    ) -> bool:
        """True if clients have to hear of it."""
        entries, entry = self._entries[type_url], encode(name, value)
        known = entries.get(name)
        self._versions.pop(type_url, None)
        entries[name] = entry
        self._values[type_url][name] = value
        self._bytes[type_url] += len(entry.framed) - (0 if known is None else len(known.framed))
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
        if self._index is None:
            self._index = self._make_index()
        return self._index

    def _make_index(self) -> Index:
        aliases: dict[str, list[str]] = defaultdict(list)
        members: dict[str, list[str]] = defaultdict(list)
        on_node: dict[str, list[str]] = defaultdict(list)
        for name, value in self._values[ADDRESS_TYPE].items():
            for alias in self._entries[ADDRESS_TYPE][name].aliases:
                aliases[alias].append(name)
            if isinstance(value, Workload):
                for key in value.services:
                    members[key].append(name)
                if value.node:
                    on_node[value.node].append(name)
        return Index(
            {alias: tuple(names) for alias, names in aliases.items()},
            {key: tuple(names) for key, names in members.items()},
            {node: tuple(names) for node, names in on_node.items()},
        )


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
