"""Objects of an API server, one by one in, a snapshot out: decides which are in force. Pure.

The rule is that of a folder: what can be understood is in force, what cannot keeps its last good
version, and a policy that never was understood is replaced by a stand-in that denies. An object
that was deleted and made anew under its name has no last good version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from control.kube.reflection import Name
from control.server.sources import core
from control.server.sources.alike import Own, own_of
from control.server.sources.entries import choose, good_one, read_as
from control.server.sources.inventory import Inventory
from control.server.sources.kinds import KINDS
from control.server.sources.narrow import document_of
from control.server.sources.objects import AnyObject, Key, PodObject
from control.server.sources.problem import Invalid, Problem
from control.server.sources.reader import Reader
from control.server.sources.snapshot import Snapshot

PLACE = "kubernetes"  # in place of a file


class KindStore:
    """Objects of one kind; `changed` is called when what is in force, or a problem, is new."""

    def __init__(self, kind: str, inventory: Inventory, changed: Callable[[], None]) -> None:
        self._kind = kind
        self._reader = KINDS[kind]
        self._inventory = inventory
        self._changed = changed
        self._problems: dict[Name, Problem] = {}
        self._names: dict[Name, None] = {}  # all, those without effect too

    def put(self, item: bytes) -> Name | None:
        own = own_of(item) if self._kind == "Pod" else None
        pod = None if own is None else own.pod(PLACE, 0)
        if pod is None:
            return self._put_read(item, own)
        name = (pod.meta.namespace, pod.meta.name)
        self._names[name] = None
        self._take(name, pod.meta.key, pod, None)
        return name

    def _put_read(self, item: bytes, own: Own | None) -> Name | None:
        """`own`: of a pod that none is known to be like."""
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
        if own is not None and isinstance(entry.object, PodObject):
            own.remember(entry.object)
        good = good_one(self._inventory.get(key))
        if good is not None and good.meta.uid != _uid(reader):
            good = None
        value, problem = choose(entry, good)
        self._take(name, key, value, problem)
        return name

    def _take(self, name: Name, key: Key, value: AnyObject | None, problem: Problem | None) -> None:
        is_new = self._inventory.put(key, value)
        if is_new or problem != self._problems.get(name):
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
        is_known = self._problems.pop(name, None) is not None
        if self._inventory.put(Key(self._kind, *name), None) or is_known:
            self._changed()

    def problems(self) -> Iterable[Problem]:
        return self._problems.values()


def _uid(reader: Reader) -> str:
    uid = reader.part("metadata").fields.get("uid")
    return uid if isinstance(uid, str) else ""


class Cluster:
    """Every kind that the mesh reads. `changed` is called when a snapshot would differ."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.inventory = Inventory()
        self.kinds = {kind: KindStore(kind, self.inventory, changed) for kind in KINDS}
        self._is_told = False

    def snapshot(self, more: Iterable[Problem] = ()) -> Snapshot:
        """News since the last call; the first time all that is in force. `more` are
        problems of the way here."""
        is_whole, self._is_told = not self._is_told, True
        problems = self.problems(more)
        changed = self.inventory.whole() if is_whole else self.inventory.news()
        return Snapshot(self.inventory, changed, problems, is_whole=is_whole)

    def problems(self, more: Iterable[Problem]) -> tuple[Problem, ...]:
        found = [each for store in self.kinds.values() for each in store.problems()]
        return tuple(sorted([*found, *more]))
