"""Conditions of policies: whether one is accepted, and to how many pods it applies. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from control.server.compile.mesh import CompiledMesh
from control.server.compile.notes import BROKEN
from control.server.compile.policies import PolicyStatus
from control.server.leader.ledger import Target
from control.server.sources.objects import (
    AuthorizationPolicy,
    Key,
    Objects,
    PeerAuthentication,
)
from control.server.sources.problem import Problem

ACCEPTED: Final = "Accepted"
ATTACHED: Final = "Attached"
INVALID: Final = "Invalid"
MESSAGE_CHARS_MAX: Final = 2048


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    type: str
    is_true: bool
    reason: str
    message: str
    generation: int = 0  # the policy's, when it was read; 0: unknown


Conditions = tuple[PolicyCondition, ...]


def wanted_conditions(
    mesh: CompiledMesh, found: Objects, problems: Iterable[Problem], root: str
) -> dict[Target, Conditions]:
    """The conditions of every policy, by object."""
    broken: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        broken[problem.object].append(problem.message)
    policies: tuple[AuthorizationPolicy | PeerAuthentication, ...] = (
        *found.authorization_policies,
        *found.peer_authentications,
    )
    known = {each.meta.key: each for each in policies}
    count = _Counts(mesh, found)
    wanted: dict[Target, Conditions] = {}
    for status in mesh.statuses:
        policy = known.get(Key(status.kind, status.namespace, status.name))
        if policy is None:
            continue  # it went since the mesh was compiled
        said = broken.get(str(policy.meta.key), [])
        everywhere = status.namespace == root
        number = count.of(policy.selector, "" if everywhere else status.namespace)
        target = Target(status.kind, status.namespace, status.name, policy.meta.uid)
        found_now = (_accepted(status, said), _attached(status, number))
        generation = policy.meta.generation
        wanted[target] = tuple(replace(each, generation=generation) for each in found_now)
    return wanted


def _accepted(status: PolicyStatus, problems: list[str]) -> PolicyCondition:
    if problems:
        return _condition(ACCEPTED, False, INVALID, problems)
    if status.reason == BROKEN:
        return _condition(ACCEPTED, False, INVALID, status.notes)
    return _condition(ACCEPTED, status.delivered, status.reason, status.notes)


def _attached(status: PolicyStatus, number: int) -> PolicyCondition:
    if not status.delivered:
        return _condition(ATTACHED, False, "NotDelivered", ["no node enforces it"])
    reason = "Attached" if number else "NoWorkloads"
    words = "1 workload" if number == 1 else f"{number} workloads"
    return _condition(ATTACHED, number > 0, reason, [f"applies to {words} in the mesh"])


def _condition(kind: str, is_true: bool, reason: str, words: Iterable[str]) -> PolicyCondition:
    return PolicyCondition(kind, is_true, reason, "; ".join(words)[:MESSAGE_CHARS_MAX])


class _Counts:
    """Numbers of pods in the mesh by namespace, and which of them have a label there: policies
    times pods would be seconds for a few thousand of each."""

    def __init__(self, mesh: CompiledMesh, found: Objects) -> None:
        enrolled = {(each.namespace, each.name) for each in mesh.pods.values() if each.enrolled}
        self._sizes: Counter[str] = Counter()
        self._having: dict[tuple[str, str, str], set[int]] = defaultdict(set)
        for number, pod in enumerate(found.pods):
            space = pod.meta.namespace
            if not pod.is_terminal and (space, pod.meta.name) in enrolled:
                self._sizes[space] += 1
                for name, value in pod.meta.labels.items():
                    self._having[space, name, value].add(number)

    def of(self, selector: Mapping[str, str], namespace: str) -> int:
        """Number of pods that it selects, in this namespace or in all of them."""
        spaces = [namespace] if namespace else list(self._sizes)
        if not selector:
            return sum(self._sizes[each] for each in spaces)
        return sum(self._selected(selector, each) for each in spaces)

    def _selected(self, selector: Mapping[str, str], space: str) -> int:
        """As `selects` does."""
        nobody: set[int] = set()
        having = [self._having.get((space, *each), nobody) for each in selector.items()]
        fewest, *others = sorted(having, key=len)
        return len(fewest.intersection(*others)) if others else len(fewest)
