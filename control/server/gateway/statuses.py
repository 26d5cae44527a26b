"""Outcome of a route at one of its parents, in the words of the Gateway API. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from control.server.sources.objects import Key
from control.server.sources.route_specs import ParentRef

ACCEPTED: Final = "Accepted"
RESOLVED_REFS: Final = "ResolvedRefs"


@dataclass(frozen=True, slots=True)
class RouteVerdict:
    """One condition. `reason` is a word of the API, or one of ours where it has none."""

    is_true: bool
    reason: str
    message: str = ""


TAKEN: Final = RouteVerdict(True, ACCEPTED)
RESOLVED: Final = RouteVerdict(True, RESOLVED_REFS)


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """`generation` is that of the text that this is about."""

    route: Key
    parent: ParentRef
    accepted: RouteVerdict
    resolved: RouteVerdict
    generation: int
    uid: str
    file: str
    line: int
    rules: int = field(default=0)  # as many came of it at this parent
