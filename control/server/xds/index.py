"""Names that on-demand clients ask by: an alias (`network/ip`) to its owners, a service to its
endpoints, a node to its workloads. Follows each change by itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, TypeAlias, TypeVar

from control.model.address import Address, CidrBlock, format_address, parse_address
from control.model.workload import Service, Workload
from control.server.xds.resource import vip_alias

_Key = TypeVar("_Key", bound=Hashable)
Table: TypeAlias = dict[_Key, tuple[str, ...]]  # a few names each
LargeTable: TypeAlias = dict[str, dict[str, None]]  # any number of them
Place: TypeAlias = tuple[str, Address]  # with its network
Block: TypeAlias = tuple[str, CidrBlock]  # with its network


class Index:
    """Addresses are kept as they are: the text of an IPv6 address is dear, and is only needed of
    one that is asked for."""

    def __init__(self) -> None:
        self.addresses: Table[Place] = {}
        self.aliases: Table[str] = {}  # virtual addresses that say how long they are
        self.blocks: Table[Block] = {}  # few: only hosts outside the cluster use them
        self.members: LargeTable = {}
        self.on_node: LargeTable = {}

    def at(self, alias: str) -> tuple[str, ...]:
        """Owners of an address that is asked for as `network/ip`, and of blocks around it."""
        found = self.aliases.get(alias, ())
        network, _, text = alias.rpartition("/")
        try:
            address = parse_address(text)
        except ValueError:
            return found
        if format_address(address) == text:  # a resource has its aliases in this form alone
            found += self.addresses.get((network, address), ())
        around = (
            name
            for block, names in self.blocks.items()
            if block[0] == network and address in block[1]
            for name in names
        )
        return tuple(dict.fromkeys((*found, *around)))

    def add(self, name: str, value: Workload | Service) -> None:
        for table, key in _few(self, value):
            known = table.get(key)
            table[key] = (name,) if known is None else (*known, name)
        for large, key in _many(self, value):
            large.setdefault(key, {})[name] = None

    def remove(self, name: str, value: Workload | Service) -> None:
        for table, key in _few(self, value):
            left = tuple(each for each in table[key] if each != name)
            if left:
                table[key] = left
            else:
                del table[key]
        for large, key in _many(self, value):
            del large[key][name]
            if not large[key]:
                del large[key]


def _few(index: Index, value: Workload | Service) -> Iterable[tuple[Table[Any], Any]]:
    """The tables that have a resource by its addresses, with its places there. An outer address is
    no alias in a response: no other client than ours has a use for it."""
    if isinstance(value, Workload):
        network = value.network
        return [(index.addresses, (network, each)) for each in dict.fromkeys(value.addresses)]
    places: dict[Place, None] = {}
    aliases: dict[str, None] = {}
    blocks: dict[Block, None] = {}
    for each in value.addresses:
        if each.length is None:
            places[each.network, each.address] = None
            continue
        aliases[vip_alias(each)] = None
        if each.length < 8 * len(each.address):
            blocks[each.network, CidrBlock(each.address, each.length)] = None
    for outer in value.outer_addresses:
        places[outer.network, outer.address] = None
    tables = ((index.addresses, places), (index.aliases, aliases), (index.blocks, blocks))
    return [(table, key) for table, keys in tables for key in keys]


def _many(index: Index, value: Workload | Service) -> Iterable[tuple[LargeTable, str]]:
    if not isinstance(value, Workload):
        return
    yield from ((index.members, key) for key in value.services)
    if value.node:
        yield index.on_node, value.node
