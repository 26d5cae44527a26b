"""Objects that select pods by labels, found by the labels of one pod. Pure.

Each is filed under one pair of its selector, at best one that few pods have: then a pod looks at
those alone that nearly select it, however many there are in its namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from control.server.compile.population import Population
from control.server.sources.objects import Key, Labels


class Selecting(Protocol):
    @property
    def selector(self) -> Labels: ...


T = TypeVar("T", bound=Selecting)

_Place = tuple[str, ...]  # namespace, and a pair; no pair for one that selects all


def selects(selector: Labels, labels: Labels) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


class Selectors(Generic[T]):
    def __init__(self, population: Population) -> None:
        self._population = population
        self._filed: dict[_Place, dict[Key, T]] = {}
        self._places: dict[Key, _Place] = {}
        self._spaces: Counter[str] = Counter()  # namespaces that have some: most pods are in others

    def put(self, key: Key, value: T, namespace: str) -> None:
        """`namespace`: that of the pods, '' for any."""
        self.drop(key)
        pair = self._population.rarest(value.selector, namespace) if value.selector else ()
        place = self._places[key] = (namespace, *pair)
        self._filed.setdefault(place, {})[key] = value
        self._spaces[namespace] += 1

    def drop(self, key: Key) -> None:
        place = self._places.pop(key, None)
        if place is None:
            return
        filed = self._filed[place]
        del filed[key]
        if not filed:
            del self._filed[place]
        self._spaces[place[0]] -= 1
        if not self._spaces[place[0]]:
            del self._spaces[place[0]]

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def of(self, namespace: str, labels: Labels) -> Iterator[tuple[Key, T]]:
        """Those that select a pod with these labels in this namespace."""
        filed = self._filed
        for space in (namespace, ""):
            if space not in self._spaces:
                continue
            if (space,) in filed:
                yield from filed[space,].items()
            for name, text in labels.items():
                if (found := filed.get((space, name, text))) is None:
                    continue
                for key, value in found.items():
                    if selects(value.selector, labels):
                        yield key, value
