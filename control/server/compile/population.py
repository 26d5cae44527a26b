"""Running pods by namespace and by label: a selector finds its pods without a search. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from control.server.sources.objects import Key, Labels

_Pair = tuple[str, str]
_NOBODY: frozenset[Key] = frozenset()


class Population:
    def __init__(self) -> None:
        self._labels: dict[str, dict[Key, Labels]] = {}
        self._having: dict[str, dict[_Pair, set[Key]]] = {}

    def put(self, pod: Key, labels: Labels) -> None:
        self.drop(pod)
        self._labels.setdefault(pod.namespace, {})[pod] = labels
        having = self._having.setdefault(pod.namespace, {})
        for pair in labels.items():
            having.setdefault(pair, set()).add(pod)

    def drop(self, pod: Key) -> None:
        known = self._labels.get(pod.namespace, {})
        labels = known.pop(pod, None)
        if labels is None:
            return
        having = self._having[pod.namespace]
        for pair in labels.items():
            having[pair].discard(pod)
            if not having[pair]:
                del having[pair]
        if not known:
            del self._labels[pod.namespace], self._having[pod.namespace]

    def of(self, namespace: str) -> Iterable[Key]:
        return self._labels.get(namespace, {}).keys()

    def namespaces(self) -> Iterable[str]:
        return self._labels.keys()

    def selected(self, selector: Labels, namespace: str) -> Iterator[Key]:
        """The pods of a namespace that have all these labels, or of any namespace for ''."""
        for space in self._spaces(namespace):
            if not selector:
                yield from self._labels[space]
                continue
            having = self._having[space]
            several = [having.get(pair, _NOBODY) for pair in selector.items()]
            fewest, *others = sorted(several, key=len)
            yield from (fewest.intersection(*others) if others and fewest else fewest)

    def rarest(self, selector: Labels, namespace: str) -> _Pair:
        """The pair of a selector that the fewest pods have."""

        def count(pair: _Pair) -> int:
            spaces = self._spaces(namespace)
            return sum(len(self._having[each].get(pair, ())) for each in spaces)

        pairs = list(selector.items())
        return pairs[0] if len(pairs) == 1 else min(pairs, key=count)

    def _spaces(self, namespace: str) -> Iterable[str]:
        if not namespace:
            return self._labels
        return (namespace,) if namespace in self._labels else ()
