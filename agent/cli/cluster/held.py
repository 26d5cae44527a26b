"""Pods that a node has not let go of yet, as its agent's page has them. Agents clean nodes only
after that: a ztunnel drops a pod, with what is open, at an agent's word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LINGERING = "lingering"  # agent/enrol/plan.py


@dataclass(frozen=True, slots=True)
class NotReleased:
    """Counts of pods: in the kernel still, or let go with connections that a ztunnel ends."""

    captured: int = 0
    lingering: int = 0

    def __str__(self) -> str:
        found = []
        if self.captured:
            found.append(f"{_pods(self.captured)} still captured")
        if self.lingering:
            found.append(f"{_pods(self.lingering)} released, with time for open connections to end")
        return "; ".join(found)


def held(pods: Iterable[dict[str, Any]]) -> NotReleased:
    """Counts over an agent's list of pods."""
    captured = lingering = 0
    for pod in pods:
        if pod.get("state") in ("captured", "releasing"):
            captured += 1
        elif pod.get("reason") == LINGERING:
            lingering += 1
    return NotReleased(captured, lingering)


def _pods(count: int) -> str:
    return f"{count} pods are" if count != 1 else "1 pod is"
