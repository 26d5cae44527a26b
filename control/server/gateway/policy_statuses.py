"""Outcome of a policy that has targets, for people: which of them a waypoint serves. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from control.server.compile.notes import BROKEN
from control.server.compile.policies import PolicyStatus, shortened
from control.server.gateway.policies import CompiledHttp
from control.server.sources.objects import AuthorizationPolicy
from control.server.sources.route_specs import TargetRef

TARGETS: Final = "TARGETS"  # in place of a scope


def policy_status(
    value: AuthorizationPolicy, compiled: CompiledHttp, unserved: Collection[TargetRef]
) -> PolicyStatus:
    """`compiled`: for requests. `unserved`: its targets at which no waypoint enforces it."""
    meta = value.meta
    is_delivered = compiled.policy is not None and len(unserved) < len(value.targets)
    notes = list(compiled.notes)
    reason = "UnsupportedValue" if notes else "Accepted"
    if value.broken:
        notes = [f"cannot be understood, so its targets are closed: {value.broken}"]
        reason = BROKEN
    elif unserved:
        reason = reason if notes else "Unmatched"
        notes += (f"no waypoint enforces it for {_words(each)}" for each in unserved)
    return PolicyStatus(
        kind=meta.key.kind,
        namespace=meta.namespace,
        name=meta.name,
        delivered=is_delivered,
        reason=reason,
        notes=tuple(shortened(notes)),
        scope=TARGETS,
        action=value.action.value if value.action is not None else "UNKNOWN",
        file=meta.file,
        line=meta.line,
    )


def _words(ref: TargetRef) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}"
