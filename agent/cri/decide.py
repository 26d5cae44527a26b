"""Decides which sandboxes to register and which registrations are over; does neither.

A list is a picture of some milliseconds ago, and a runtime lists a sandbox only after its CNI
plugins have answered. So a registration that is not in it yet is no dead one: it counts as over
once its sandbox was ready before, or when it has been missing for longer than a start may take.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from agent.cri.sandboxes import Sandbox

# The kubelet gives a sandbox four minutes to start.
STARTING_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration, as far as it matters here. No container id: not a runtime's."""

    uid: str
    container_id: str
    has_namespace: bool
    is_left_behind: bool = False  # captured, and the control plane has no intent for it any more


@dataclass(slots=True)
class Sightings:
    """Memory of earlier lists."""

    ready: set[str] = field(default_factory=set)  # ids of registered sandboxes
    missing_since_s: dict[str, float] = field(default_factory=dict)


def to_register(
    ready: Mapping[str, Sandbox],
    registered: Mapping[str, Registered],
    skip: Collection[str],
) -> list[Sandbox]:
    """Ready sandboxes that nobody has registered; those of `skip` (ids) are known better."""
    return [
        each
        for uid, each in ready.items()
        if each.id not in skip and not _is_registered(registered.get(uid), each)
    ]


def _is_registered(known: Registered | None, sandbox: Sandbox) -> bool:
    return known is not None and known.has_namespace and known.container_id == sandbox.id


def over(
    listed: Iterable[Sandbox],
    registered: Iterable[Registered],
    seen: Sightings,
    now_s: float,
) -> list[Registered]:
    """Registrations whose sandbox is not ready any more."""
    ready = {each.id for each in listed if each.is_ready}
    found = []
    missing = {}
    for each in registered:
        if not each.container_id or not each.has_namespace or each.container_id in ready:
            continue
        since_s = seen.missing_since_s.get(each.container_id, now_s)
        missing[each.container_id] = since_s
        if each.container_id in seen.ready or now_s - since_s >= STARTING_S_MAX:
            found.append(each)
    seen.missing_since_s = missing
    seen.ready = (seen.ready & missing.keys()) | ready
    return found


def completed(
    registered: Iterable[Registered], alive: Collection[str], any_at_all: Collection[str]
) -> list[Registered]:
    """Captured pods that are left behind, such as Jobs that are done: they had containers, and none
    of these lives. Without this they would stay captured while their sandbox lingers."""
    return [
        each
        for each in registered
        if each.is_left_behind
        and each.container_id in any_at_all
        and each.container_id not in alive
    ]
