"""Objects of an API server, one by one in, a snapshot out: decides which are in force. Pure.

The rule is that of a folder: what can be understood is in force, what cannot keeps its last good
version, and a policy that never was understood is replaced by a stand-in that denies. An object
that was deleted and made anew under its name has no last good version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar, cast

from control.kube.reflection import Name
from control.server.sources import core
from control.server.sources.entries import choose, read_as
from control.server.sources.folder import Snapshot
from control.server.sources.kinds import KINDS
from control.server.sources.narrow import document_of
from control.server.sources.objects import (
    AnyObject,
    AuthorizationPolicy,
    EndpointSlice,
    Namespace,
    NodeObject,
    Objects,
    PeerAuthentication,
    PodObject,
    ServiceAccount,
    ServiceObject,
)
from control.server.sources.problem import Invalid, Problem
from control.server.sources.reader import Reader

PLACE = "kubernetes"  # in place of a file

_Kind = TypeVar("_Kind", bound=AnyObject)


class KindStore:
    """Objects of one kind; `changed` is called when what is in force, or a problem, is new."""

    def __init__(self, kind: str, changed: Callable[[], None]) -> None:
        self._kind = kind
        self._reader = KINDS[kind]
        self._changed = changed
        self._in_force: dict[Name, AnyObject] = {}
        self._good: dict[Name, AnyObject] = {}  # only of those that are broken now
        self._problems: dict[Name, Problem] = {}
        self._names: dict[Name, None] = {}  # all, those without effect too
        self._sorted: tuple[AnyObject, ...] | None = None

    def put(self, item: bytes) -> Name | None:
        document = document_of(self._kind, item)
        if document is None:
            return None
        reader = Reader(document)
        try:
            key = core.read_key(reader)
        except Invalid:
            return None  # an API server checks names
        name = (key.namespace, key.name)
        self._names[name] = None
        entry = read_as(self._reader, PLACE, reader, key)
        good = self._good.get(name) or self._in_force.get(name)
        if good is not None and (good.meta.uid != _uid(reader) or _is_stand_in(good)):
            good = None
        value, problem = choose(entry, good)
        self._take(name, value, problem)
        if entry.object is None and good is not None:
            self._good[name] = good
        else:
            self._good.pop(name, None)
        return name

    def _take(self, name: Name, value: AnyObject | None, problem: Problem | None) -> None:
        before = self._in_force.get(name)
        if value is None:
            self._in_force.pop(name, None)
        elif value != before:
            self._in_force[name] = value
        else:
            value = before
        if value is not before:
            self._sorted = None
        if value is not before or problem != self._problems.get(name):
            self._changed()
        if problem is None:
            self._problems.pop(name, None)
        else:
            self._problems[name] = problem

    def gone(self, item: bytes) -> None:
        document = document_of(self._kind, item)
        try:
            key = None if document is None else core.read_key(Reader(document))
        except Invalid:
            key = None
        if key is not None:
            self._drop((key.namespace, key.name))

    def keep(self, names: AbstractSet[Name]) -> int:
        gone = [name for name in self._names if name not in names]
        for name in gone:
            self._drop(name)
        return len(gone)

    def _drop(self, name: Name) -> None:
        self._names.pop(name, None)
        self._good.pop(name, None)
        is_known = self._problems.pop(name, None) is not None
        if self._in_force.pop(name, None) is not None:
            self._sorted = None
            is_known = True
        if is_known:
            self._changed()

    def objects(self) -> tuple[AnyObject, ...]:
        """Those in force, by namespace and name."""
        if self._sorted is None:
            self._sorted = tuple(self._in_force[name] for name in sorted(self._in_force))
        return self._sorted

    def problems(self) -> Iterable[Problem]:
        return self._problems.values()


def _is_stand_in(value: AnyObject) -> bool:
    return isinstance(value, AuthorizationPolicy | PeerAuthentication) and bool(value.broken)


def _uid(reader: Reader) -> str:
    uid = reader.part("metadata").fields.get("uid")
    return uid if isinstance(uid, str) else ""


class Cluster:
    """Every kind that the mesh reads. `changed` is called when a snapshot would differ."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.kinds = {kind: KindStore(kind, changed) for kind in KINDS}

    def snapshot(self, more: Iterable[Problem] = ()) -> Snapshot:
        """All that is in force. `more` are problems of the way here."""
        problems = [each for store in self.kinds.values() for each in store.problems()]
        return Snapshot(
            Objects(
                namespaces=self._of(Namespace, "Namespace"),
                service_accounts=self._of(ServiceAccount, "ServiceAccount"),
                nodes=self._of(NodeObject, "Node"),
                pods=self._of(PodObject, "Pod"),
                services=self._of(ServiceObject, "Service"),
                slices=self._of(EndpointSlice, "EndpointSlice"),
                authorization_policies=self._of(AuthorizationPolicy, "AuthorizationPolicy"),
                peer_authentications=self._of(PeerAuthentication, "PeerAuthentication"),
            ),
            tuple(sorted([*problems, *more])),
            {},
        )

    def _of(self, kind: type[_Kind], name: str) -> tuple[_Kind, ...]:
        found: Any = self.kinds[name].objects()  # a reader makes objects of its own kind alone
        return cast(tuple[_Kind, ...], found)
