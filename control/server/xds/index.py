"""Names that on-demand clients ask by: an alias (`network/ip`) to its owners, a service to its
endpoints, a node to its workloads. Follows each change by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from control.model.workload import Service, Workload
from control.server.xds.resource import CachedResource

Table = dict[str, tuple[str, ...]]


class Index:
    def __init__(
        self, values: Mapping[str, Workload | Service], entries: Mapping[str, CachedResource]
    ) -> None:
        aliases, members, on_node = (defaultdict[str, list[str]](list) for _ in range(3))
        for name, value in values.items():
            for alias in entries[name].aliases:
                aliases[alias].append(name)
            for key in _services(value):
                members[key].append(name)
            for node in _nodes(value):
                on_node[node].append(name)
        self.aliases, self.members, self.on_node = map(_table, (aliases, members, on_node))

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
    ) -> Iterable[tuple[Table, str]]:
        yield from ((self.aliases, alias) for alias in dict.fromkeys(entry.aliases))
        yield from ((self.members, key) for key in _services(value))
        yield from ((self.on_node, node) for node in _nodes(value))


def _services(value: Workload | Service) -> Iterable[str]:
    return value.services if isinstance(value, Workload) else ()


def _nodes(value: Workload | Service) -> Iterable[str]:
    return (value.node,) if isinstance(value, Workload) and value.node else ()


def _table(found: Mapping[str, list[str]]) -> Table:
    return {key: tuple(names) for key, names in found.items()}
