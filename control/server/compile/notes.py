"""Notes on objects that were accepted and do less, or more, than their author wrote. Pure."""

from __future__ import annotations

from control.server.compile.policies import PolicyStatus
from control.server.sources.problem import Problem

BROKEN = "Broken"  # such an object is a problem of its own, which says the same


def notes_on(status: PolicyStatus | None) -> list[Problem]:
    """One for each thing to say; several on one object stay apart."""
    if status is None or status.reason == BROKEN:
        return []
    name = f"{status.kind} {status.namespace}/{status.name}"
    return [Problem(status.file, status.line, name, status.reason, said) for said in status.notes]
