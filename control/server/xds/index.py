"""Names that on-demand clients ask by: an alias (`network/ip`) to its owners, a service to its
endpoints, a node to its workloads. Follows each change by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from control.model.address import CidrBlock, parse_address
from control.model.workload import Service, Workload
from control.server.xds.resource import CachedResource, alias_of

_Key = TypeVar("_Key", bound=Hashable)
Table = dict[_Key, tuple[str, ...]]
Block = tuple[str, CidrBlock]  # with its network


class Index:
    def __init__(
        self, values: Mapping[str, Workload | Service], entries: Mapping[str, CachedResource]
    ) -> None:
        aliases, members, on_node = (defaultdict[str, list[str]](list) for _ in range(3))
        blocks = defaultdict[Block, list[str]](list)
        for name, value in values.items():
            for alias in _by_address(value, entries[name]):
                aliases[alias].append(name)
            for block in _blocks(value):
                blocks[block].append(name)
            for key in _services(value):
                members[key].append(name)
            for node in _nodes(value):
                on_node[node].append(name)
        self.aliases, self.members, self.on_node = map(_table, (aliases, members, on_node))
        self.blocks: Table[Block] = _table(blocks)  # few: only hosts outside the cluster use them

    def at(self, alias: str) -> tuple[str, ...]:
        """Owners of an address that is asked for as `network/ip`, and of blocks around it."""
        found = self.aliases.get(alias, ())
        if not self.blocks:
            return found
        network, _, text = alias.rpartition("/")
        try:
            address = parse_address(text)
        except ValueError:
            return found
        around = (
            name
            for block, names in self.blocks.items()
            if block[0] == network and address in block[1]
            for name in names
        )
        return tuple(dict.fromkeys((*found, *around)))

    def add(self, name: str, value: Workload | Service, entry: CachedResource) -> None:
        for table, key in self._places(value, entry):
            table[key] = (*table.get(key, ()), name)

    def remove(self, name: str, value: Workload | Service, entry: CachedResource) -> None:
        for table, key in self._places(value, entry):
            left = tuple(each for each in table[key] if each != name)
            if left:
                table[key] = left
            else:
                del table[key]

    def _places(
        self, value: Workload | Service, entry: CachedResource
    ) -> Iterable[tuple[Table[Any], Any]]:
        yield from ((self.aliases, alias) for alias in dict.fromkeys(_by_address(value, entry)))
        yield from ((self.blocks, block) for block in dict.fromkeys(_blocks(value)))
        yield from ((self.members, key) for key in _services(value))
        yield from ((self.on_node, node) for node in _nodes(value))


def _by_address(value: Workload | Service, entry: CachedResource) -> Iterable[str]:
    """Its aliases, and the addresses that lead to it at some ports: no other client has a use for
    those, so they are no aliases in a response."""
    yield from entry.aliases
    if isinstance(value, Service):
        for each in value.outer_addresses:
            yield alias_of(each.network, each.address)


def _blocks(value: Workload | Service) -> Iterable[Block]:
    for each in value.addresses if isinstance(value, Service) else ():
        if each.length is not None and each.length < 8 * len(each.address):
            yield each.network, CidrBlock(each.address, each.length)


def _services(value: Workload | Service) -> Iterable[str]:
    return value.services if isinstance(value, Workload) else ()


def _nodes(value: Workload | Service) -> Iterable[str]:
    return (value.node,) if isinstance(value, Workload) and value.node else ()


def _table(found: Mapping[_Key, list[str]]) -> Table[_Key]:
    return {key: tuple(names) for key, names in found.items()}
