"""Notes on objects that were accepted and do less, or more, than their author wrote. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from control.server.compile.policies import PolicyStatus
from control.server.sources.problem import Problem

BROKEN = "Broken"  # such an object is a problem of its own, which says the same


def notes_on(statuses: Iterable[PolicyStatus]) -> tuple[Problem, ...]:
    """One for each thing to say; several on one object stay apart."""
    return tuple(
        Problem(
            each.file, each.line, f"{each.kind} {each.namespace}/{each.name}", each.reason, said
        )
        for each in statuses
        if each.reason != BROKEN
        for said in each.notes
    )
