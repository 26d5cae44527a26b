"""Notes on routes and policies of waypoints that do less, or other, than they say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from control.server.compile.notes import notes_on
from control.server.compile.policies import PolicyStatus
from control.server.gateway.statuses import RouteStatus
from control.server.sources.problem import Problem


def notes_of(policies: Iterable[PolicyStatus], routes: Iterable[RouteStatus]) -> Iterator[Problem]:
    """One for each thing to say: a policy's notes, a route's parents that it is not good for."""
    for policy in policies:
        yield from notes_on(policy)
    for route in routes:
        ref = route.parent.ref
        parent = f"{ref.kind} {ref.namespace}/{ref.name}"
        for verdict in (route.accepted, route.resolved):
            if not verdict.is_true:
                said = f": {verdict.message}" if verdict.message else ""
                words = f"at {parent}{said}"
                yield Problem(route.file, route.line, str(route.route), verdict.reason, words)
