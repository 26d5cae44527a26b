"""Policies whose selector selects no pod: in force, for nobody. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from control.server.compile.policies import PolicyStatus
from control.server.compile.workloads import selects
from control.server.sources.objects import Labels, Objects, PodObject

LABELS_SHOWN_MAX = 8

_Name = tuple[str, str, str]  # kind, namespace, name


class Population:
    """Labels of the pods by namespace. Most selectors that select nothing have a label that no pod
    has, which takes one look."""

    def __init__(self, pods: Iterable[PodObject]) -> None:
        self._labels: dict[str, list[Labels]] = {}
        self._pairs: dict[str, set[tuple[str, str]]] = {}
        for pod in pods:
            if not pod.is_terminal:
                self._labels.setdefault(pod.meta.namespace, []).append(pod.meta.labels)
                pairs = self._pairs.setdefault(pod.meta.namespace, set())
                pairs.update(pod.meta.labels.items())

    def has(self, selector: Mapping[str, str], namespace: str) -> bool:
        """True if it selects a pod of this namespace, or of any for ''."""
        return any(
            selector.items() <= self._pairs[name]
            and any(selects(selector, labels) for labels in self._labels[name])
            for name in ([namespace] if namespace else self._labels)
            if name in self._labels
        )


def with_selection(
    statuses: Iterable[PolicyStatus], found: Objects, root: str
) -> Iterator[PolicyStatus]:
    """The statuses, with a note on each whose selector selects no pod."""
    selectors: dict[_Name, Labels] = {
        (kind, each.meta.namespace, each.meta.name): each.selector
        for kind, objects in (
            ("AuthorizationPolicy", found.authorization_policies),
            ("PeerAuthentication", found.peer_authentications),
        )
        for each in objects
        if each.selector
    }
    population = Population(found.pods) if selectors else Population(())
    for status in statuses:
        selector = selectors.get((status.kind, status.namespace, status.name))
        if selector is None or not status.delivered:
            yield status
            continue
        everywhere = status.namespace == root and status.kind == "AuthorizationPolicy"
        if population.has(selector, "" if everywhere else status.namespace):
            yield status
            continue
        where = "the mesh" if everywhere else f"namespace {status.namespace}"
        note = f"its selector ({_text(selector)}) selects no pod of {where}"
        reason = "Unmatched" if status.reason == "Accepted" else status.reason
        yield replace(status, notes=(*status.notes, note), reason=reason)


def _text(selector: Labels) -> str:
    shown = [f"{name}={value}" for name, value in sorted(selector.items())]
    more = ["…"] if len(shown) > LABELS_SHOWN_MAX else []
    return ", ".join(shown[:LABELS_SHOWN_MAX] + more)
