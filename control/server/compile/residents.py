"""Pods as the mesh sees them: who they are, where they are, and if they belong into it. Pure.

What a source says of a pod becomes a resident by what others know: its namespace says if it is
enrolled, its node where it is and that it is captured, and of several that call themselves the
mirror of one static pod the oldest alone is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from control.kit.slices import emptied
from control.model.intent import Intent, NamespaceIntent
from control.server.compile.pods import (
    MIRROR_ANNOTATION,
    NamespaceWord,
    intent_of,
    is_captured,
    namespace_enrols,
    pod_uid,
    unmirrored,
    word_of,
)
from control.server.compile.population import Population
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.compile.waypoint_labels import GATEWAY_NAME_LABEL, is_waypoint, waypoint_of_pod
from control.server.sources.objects import Gateway, Key, Labels, Meta, Namespace, PodObject

_SILENT = NamespaceWord()


class Reports(Protocol):
    """The nodes' word about their pods."""

    def placed(self, uid: str, pod: PodObject) -> PodObject:
        """The pod, where its node says it is."""

    def is_captured(self, intent: Intent) -> bool:
        """True if its node says so, or is believed to."""

    def gone(self, uid: str) -> None:
        """No pod has this uid any more."""


@dataclass(frozen=True, slots=True)
class Resident:
    """`stated`: as the source has it. `intent`: None once the pod has ended."""

    stated: PodObject
    pod: PodObject
    uid: str
    intent: Intent | None
    is_captured: bool
    is_waypoint: bool = False

    @property
    def is_enrolled(self) -> bool:
        return self.intent is not None and self.intent.enrolled

    @property
    def labels(self) -> Labels | None:
        """None for a pod that has ended: nobody selects it."""
        return None if self.intent is None else self.pod.meta.labels

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """Node, namespace and account; None for a pod that does not run."""
        if self.intent is None or not self.pod.node:
            return None
        return self.pod.node, self.pod.meta.namespace, self.pod.service_account


@dataclass(frozen=True, slots=True)
class Move:
    """Fate of one pod; None: it is not there."""

    key: Key
    before: Resident | None
    after: Resident | None


class Residents:
    def __init__(self, settings: Settings, reports: Reports) -> None:
        self.pods: ResourceTable[Intent] = ResourceTable()
        self.namespaces: ResourceTable[NamespaceIntent] = ResourceTable()
        self.population = Population()
        self.identities: Counter[tuple[str, str, str]] = Counter()
        self.marked: Counter[str] = Counter()  # nodes of pods that an annotation calls captured
        self._settings = settings
        self._reports = reports
        self._stated: dict[Key, PodObject] = {}
        self._here: dict[Key, Resident] = {}
        self._spaces: dict[str, Meta] = {}
        self._words: dict[str, NamespaceWord] = {}  # by namespace
        self._by_uid: dict[str, tuple[Key, ...]] = {}
        self._on_node: dict[str, set[Key]] = {}
        self._mirrors: dict[str, dict[Key, PodObject]] = {}  # by the uid that they claim
        self._oldest: dict[str, Key] = {}
        self._running: Counter[str] = Counter()  # by namespace
        self._enrolled: Counter[str] = Counter()
        self._unsettled: dict[Key, None] = {}
        self._waypoints: set[tuple[str, str]] = set()

    # News

    def put_namespace(self, name: str, value: Namespace | None) -> None:
        self._spaces.pop(name, None)
        before, after = self._words.pop(name, _SILENT), _SILENT
        if value is not None:
            self._spaces[name] = value.meta
            after = self._words[name] = word_of(value.meta)
        if before != after:
            self._unsettled.update(dict.fromkeys(self.population.of(name)))
        self._show_namespace(name)

    def put_gateway(self, key: Key, value: Gateway | None) -> None:
        place = key.namespace, key.name
        is_one = value is not None and is_waypoint(value)
        if is_one == (place in self._waypoints):
            return
        self._waypoints ^= {place}
        pods = self.population.selected({GATEWAY_NAME_LABEL: key.name}, key.namespace)
        self._unsettled.update(dict.fromkeys(pods))

    def put_pod(self, key: Key, value: PodObject | None) -> None:
        before = self._stated.pop(key, None)
        if value is not None:
            self._stated[key] = value
        self._unsettled[key] = None
        for each, is_there in ((before, False), (value, True)):
            if each is not None and MIRROR_ANNOTATION in each.meta.annotations:
                self._put_mirror(key, each, is_there)

    def _put_mirror(self, key: Key, pod: PodObject, is_there: bool) -> None:
        uid = pod_uid(pod.meta)
        rivals, before = self._mirrors.setdefault(uid, {}), self._oldest.get(uid)
        if is_there:
            rivals[key] = pod
            if before is None or _age(pod) < _age(rivals[before]):
                self._oldest[uid] = key
        else:
            del rivals[key]
            if before == key:
                del self._oldest[uid]
                if rivals:
                    self._oldest[uid] = min(rivals, key=lambda each: _age(rivals[each]))
            if not rivals:
                del self._mirrors[uid]
        after = self._oldest.get(uid)
        if before != after:
            self._unsettled.update({each: None for each in (before, after) if each is not None})

    def report(self, uids: Iterable[str]) -> Iterator[None]:
        """Nodes have said something of these pods."""
        for uid in uids:
            self._unsettled.update(dict.fromkeys(self._by_uid.get(uid, ())))
            yield

    def let_go(self, settings: Settings) -> None:
        """Other settings than before."""
        self._settings = settings
        self._unsettled.update(dict.fromkeys(self._stated))
        for name in list(self.namespaces.current):
            self._show_namespace(name)

    def settle(self) -> Iterator[Move | None]:
        """Take the news over, pod by pod; None for one that is as it was."""
        unsettled, self._unsettled = self._unsettled, {}
        space = None
        for key in unsettled:
            if key.namespace != space:  # pods of one come together
                self._show_namespace(space)
                space = key.namespace
            before, stated = self._here.get(key), self._stated.get(key)
            after = None if stated is None else self._resident(key, stated)
            if before == after:
                yield None
                continue
            self._move(key, before, after)
            yield Move(key, before, after)
        self._show_namespace(space)
        for _ in emptied(unsettled):
            yield None

    def _resident(self, key: Key, stated: PodObject) -> Resident:
        uid = pod_uid(stated.meta)
        if MIRROR_ANNOTATION in stated.meta.annotations and self._oldest[uid] != key:
            stated = unmirrored(stated)
            uid = pod_uid(stated.meta)
        if stated.is_terminal:
            return Resident(stated, stated, uid, None, False)
        pod = self._reports.placed(uid, stated)
        waypoint = waypoint_of_pod(pod) in self._waypoints
        word = self._words.get(key.namespace, _SILENT)
        intent = intent_of(pod, uid, word, self._settings, waypoint)
        return Resident(stated, pod, uid, intent, self._reports.is_captured(intent), waypoint)

    def _move(self, key: Key, before: Resident | None, after: Resident | None) -> None:
        if before is not None:
            del self._here[key]
            self._count(key, before, -1)
        if after is not None:
            self._here[key] = after
            self._count(key, after, 1)
        if after is None or after.labels is None:
            self.population.drop(key)
        elif before is None or before.labels != after.labels:
            self.population.put(key, after.labels)
        for uid in {each.uid for each in (before, after) if each is not None}:
            keys = self._by_uid.get(uid, ())
            self.pods.put(uid, self._intent(keys))
            if not keys:
                self._reports.gone(uid)

    def _intent(self, keys: Sequence[Key]) -> Intent | None:
        """Two of one uid are a mistake of somebody's: the last one counts, at every start."""
        if len(keys) == 1:
            return self._here[keys[0]].intent
        return next((one for at in reversed(keys) if (one := self._here[at].intent)), None)

    def _count(self, key: Key, resident: Resident, step: int) -> None:
        known = self._by_uid.pop(resident.uid, ())
        keys = tuple(sorted({*known} ^ {key})) if known else (key,)
        if keys:
            self._by_uid[resident.uid] = keys
        node = resident.pod.node
        if is_captured(resident.pod, False):
            _add(self.marked, node, step)
        if resident.intent is None:
            return
        on_node = self._on_node.setdefault(node, set())
        on_node ^= {key}
        if not on_node:
            del self._on_node[node]
        _add(self._running, key.namespace, step)
        _add(self._enrolled, key.namespace, step * resident.is_enrolled)
        if resident.identity is not None:
            _add(self.identities, resident.identity, step)

    def _show_namespace(self, name: str | None) -> None:
        """A label on a pod counts for its whole namespace: the next one like it may start
        elsewhere. None: nothing to show."""
        if name is None:
            return
        meta = self._spaces.get(name)
        if meta is None and not self._running[name]:
            self.namespaces.put(name, None)
            return
        enrols = meta is not None and namespace_enrols(meta, self._settings)
        enrols = enrols or self._enrolled[name] > 0
        self.namespaces.put(name, NamespaceIntent(name, enrols))

    # Answers

    def get(self, key: Key) -> Resident | None:
        return self._here.get(key)

    def stated_in(self, namespace: str, labels: Labels | None = None) -> list[PodObject]:
        """Running pods of a namespace that have all these labels, as the source has them."""
        found = self.population.selected(labels or {}, namespace)
        return [self._here[key].stated for key in found]

    def with_uid(self, uid: str) -> list[Resident]:
        return [self._here[key] for key in self._by_uid.get(uid, ())]

    def keys(self) -> Iterator[Key]:
        """Pods and namespaces as they were put."""
        yield from self._stated
        yield from (meta.key for meta in self._spaces.values())

    def uids_on(self, node: str) -> list[str]:
        return [self._here[key].uid for key in self.on_node(node)]

    def on_node(self, node: str) -> Collection[Key]:
        """Pods of a node that have not ended."""
        return self._on_node.get(node, ())

    @property
    def nodes(self) -> Collection[str]:
        """Nodes that have such a pod."""
        return self._on_node.keys()

    def enrolled_in(self, namespace: str) -> int:
        """Number of enrolled pods in a namespace, or in all for ''."""
        return self._enrolled[namespace] if namespace else self._enrolled.total()


def _age(pod: PodObject) -> tuple[tuple[bool, str, str], str]:
    return pod.meta.age_key, pod.meta.namespace


def _add(counter: Counter[str] | Counter[tuple[str, str, str]], what: object, step: int) -> None:
    """As `+=`, and what is at nought is not kept."""
    counts: Counter[object] = counter  # type: ignore[assignment]  # both are counted alike
    counts[what] += step
    if not counts[what]:
        del counts[what]
