"""Policies of every kind in force, and who has to keep to which. Pure.

Three things follow from a policy: its resource, its status, and its name in the workloads that it
selects. A pod that comes, goes or is labelled anew changes the numbers of those that select it, and
a policy that selects nobody says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import TypeAlias

from control.model.policy import Policy
from control.server.compile.authorizations import Authorizations
from control.server.compile.mutual_tls import MutualTls
from control.server.compile.policies import PolicyStatus
from control.server.compile.residents import Move, Resident, Residents
from control.server.compile.selection import unselected
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.sources.objects import AuthorizationPolicy, Key, Labels, PeerAuthentication

PolicyObject: TypeAlias = AuthorizationPolicy | PeerAuthentication


class Rulebook:
    def __init__(self, settings: Settings, residents: Residents) -> None:
        self.policies: ResourceTable[Policy] = ResourceTable()
        self.statuses: dict[Key, PolicyStatus] = {}
        self._root = settings.root_namespace
        self._residents = residents
        self._found: dict[Key, PolicyObject] = {}
        self._authorizations = Authorizations(settings, residents.population)
        self._mutual_tls = MutualTls(settings, residents.population)
        self._bare: dict[Key, PolicyStatus] = {}  # statuses without a word on selection
        self._selected: Counter[Key] = Counter()  # running pods
        self._enrolled: Counter[Key] = Counter()  # those in the mesh among them
        self._stale: set[Key] = set()  # statuses
        self._uncounted: set[Key] = set()

    # News

    def put_authorization(self, key: Key, value: AuthorizationPolicy | None) -> None:
        self._authorizations.put(key, value)
        self._follow(key, value)

    def put_peer(self, key: Key, value: PeerAuthentication | None) -> None:
        self._mutual_tls.put(key, value)
        self._follow(key, value)

    def _follow(self, key: Key, value: PolicyObject | None) -> None:
        self._found.pop(key, None)
        self._selected.pop(key, None)
        self._enrolled.pop(key, None)
        self._uncounted.add(key)
        if value is not None:
            self._found[key] = value

    def count(self) -> Iterator[None]:
        """Count the pods of new policies, in steps: before the next pod moves."""
        uncounted, self._uncounted = self._uncounted, set()
        for key in uncounted:
            for each in self._pods_of(key):
                self._count(key, self._residents.get(each), 1)
                yield
            yield

    def _pods_of(self, key: Key) -> Iterable[Key]:
        """Running pods that it selects, if it is one that selects pods."""
        found = self._found.get(key)
        tables = self._authorizations.selecting, self._mutual_tls.selecting
        if found is None or not found.selector or not any(key in each for each in tables):
            return ()
        space = "" if self._is_everywhere(key) else key.namespace
        return self._residents.population.selected(found.selector, space)

    def moved(self, move: Move) -> None:
        """A pod is another than before."""
        sides = (move.before, -1), (move.after, 1)
        labels = [each.labels for each, _ in sides if each is not None]
        enrolled = [each.is_enrolled for each, _ in sides if each is not None]
        if len(labels) == 2 and labels[0] == labels[1] and enrolled[0] == enrolled[1]:
            return
        for resident, step in sides:
            if resident is not None and resident.labels is not None:
                for key in self._selecting(move.key.namespace, resident.labels):
                    was_any = self._selected[key] > 0
                    self._count(key, resident, step)
                    if was_any != (self._selected[key] > 0):
                        self._stale.add(key)

    def _selecting(self, namespace: str, labels: Labels) -> Iterator[Key]:
        for each in (self._authorizations.selecting, self._mutual_tls.selecting):
            yield from (key for key, value in each.of(namespace, labels) if value.selector)

    def _count(self, key: Key, resident: Resident | None, step: int) -> None:
        self._selected[key] += step
        if resident is not None and resident.is_enrolled:
            self._enrolled[key] += step

    def settle(self) -> Generator[None, None, tuple[set[Key], list[Iterable[Key]]]]:
        """Take the news over, which is counted by now, in steps; the policies with another status,
        and groups of pods that may have other policies."""
        concerned: list[Iterable[Key]] = []
        strict = yield from self._mutual_tls.settle()
        for changes in (self._authorizations.settle(), strict):
            for name, policy in changes.policies.items():
                self.policies.put(name, policy)
                yield
            for key, status in changes.statuses.items():
                self._bare.pop(key, None)
                if status is not None:
                    self._bare[key] = status
                self._stale.add(key)
                yield
            concerned += changes.pods
        stale, self._stale = self._stale, set()
        shown = set()
        for key in stale:
            if self._show(key):
                shown.add(key)
            yield
        return shown, concerned

    def _show(self, key: Key) -> bool:
        """True if the status is another one."""
        before, status = self.statuses.pop(key, None), self._bare.get(key)
        if status is not None:
            selector = self._found[key].selector
            if selector and status.delivered and self._selected[key] <= 0:
                status = unselected(status, selector, self._is_everywhere(key))
            self.statuses[key] = status
        return before != status

    def _is_everywhere(self, key: Key) -> bool:
        return key.namespace == self._root and key.kind == "AuthorizationPolicy"

    # Answers

    def policies_of(self, namespace: str, labels: Labels) -> tuple[str, ...]:
        """Names of the policies of a pod: those that select it, and its STRICT."""
        strict = self._mutual_tls.policies_of(namespace, labels)
        return tuple(sorted([*self._authorizations.policies_of(namespace, labels), *strict]))

    def is_strict(self, namespace: str, labels: Labels) -> bool:
        """True if any PeerAuthentication refuses callers of such a pod."""
        return bool(self._mutual_tls.policies_of(namespace, labels))

    def keys(self) -> Iterable[Key]:
        return self._found.keys()

    def get(self, key: Key) -> PolicyObject | None:
        return self._found.get(key)

    def enrolled(self, key: Key) -> int:
        """Number of pods in the mesh that a policy applies to."""
        if self._found[key].selector:
            return self._enrolled[key]
        return self._residents.enrolled_in("" if key.namespace == self._root else key.namespace)
