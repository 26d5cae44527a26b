"""Conditions of policies: whether one is accepted, and to how many pods it applies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from control.server.compile.notes import BROKEN
from control.server.compile.policies import PolicyStatus
from control.server.compile.rulebook import PolicyObject
from control.server.gateway.policy_statuses import TARGETS

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


def conditions_of(
    status: PolicyStatus, policy: PolicyObject, problems: Sequence[str], pods: int
) -> Conditions:
    """`problems`: what is wrong with the object. `pods`: the number of those in the mesh that it
    applies to."""
    found = (_accepted(status, problems), _attached(status, pods))
    return tuple(replace(each, generation=policy.meta.generation) for each in found)


def _accepted(status: PolicyStatus, problems: Sequence[str]) -> PolicyCondition:
    if problems:
        return _condition(ACCEPTED, False, INVALID, problems)
    if status.reason == BROKEN:
        return _condition(ACCEPTED, False, INVALID, status.notes)
    return _condition(ACCEPTED, status.delivered, status.reason, status.notes)


def _attached(status: PolicyStatus, number: int) -> PolicyCondition:
    is_targeted = status.scope == TARGETS
    if not status.delivered:
        nobody = "waypoint" if is_targeted else "node"
        return _condition(ATTACHED, False, "NotDelivered", [f"no {nobody} enforces it"])
    if is_targeted:
        return _condition(ATTACHED, True, "Attached", ["a waypoint enforces it"])
    reason = "Attached" if number else "NoWorkloads"
    words = "1 workload" if number == 1 else f"{number} workloads"
    return _condition(ATTACHED, number > 0, reason, [f"applies to {words} in the mesh"])


def _condition(kind: str, is_true: bool, reason: str, words: Iterable[str]) -> PolicyCondition:
    return PolicyCondition(kind, is_true, reason, "; ".join(words)[:MESSAGE_CHARS_MAX])
