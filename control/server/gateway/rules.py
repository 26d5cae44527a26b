"""Rules of a route → rules of the model, one for each match. Pure.

Of a rule that we cannot do as it is written, the requests are answered with 500: none goes on
without a filter that its author asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from control.model.route import Destination, HttpRule, Mirror, RequestMatch
from control.server.gateway.precedence import Rank, rank
from control.server.gateway.references import UNSUPPORTED_FILTER, References
from control.server.gateway.statuses import RESOLVED, RouteVerdict
from control.server.sources.objects import RouteObject
from control.server.sources.route_specs import RouteRule


@dataclass(frozen=True, slots=True)
class RouteRules:
    """All that a route says. `backends`: names of those that it needs."""

    rules: tuple[tuple[Rank, HttpRule], ...]
    backends: frozenset[str]
    resolved: RouteVerdict


def rules_of(route: RouteObject, references: References) -> RouteRules:
    found: list[tuple[Rank, HttpRule]] = []
    backends: set[str] = set()
    resolved = RESOLVED
    for index, rule in enumerate(route.spec.rules):
        made, verdicts = _rule(route, index, rule, references)
        found += made
        for _, each in made[:1]:  # those of its other matches are the same
            backends.update(one.backend for one in each.destinations)
            backends.update(one.backend for one in each.mirrors)
        resolved = next((each for each in (resolved, *verdicts) if not each.is_true), RESOLVED)
    return RouteRules(tuple(found), frozenset(backends - {""}), resolved)


def in_order(rules: Iterable[tuple[Rank, HttpRule]]) -> tuple[HttpRule, ...]:
    """Rules of several routes, as they are tried."""
    return tuple(rule for _, rule in sorted(rules, key=lambda each: each[0]))


def _rule(
    route: RouteObject, index: int, rule: RouteRule, references: References
) -> tuple[list[tuple[Rank, HttpRule]], list[RouteVerdict]]:
    filters = rule.filters
    key, name = route.meta.key, f"{route.meta.namespace}/{route.meta.name}/{rule.name or index}"
    if filters.refusal:
        said = f"rules[{index}]: {filters.refusal} is not supported: its requests are refused"
        closed = [
            (rank(match, route.meta, place), HttpRule(f"{name}/{place[1]}", match))
            for place, match in _places(index, rule)
        ]
        return closed, [RouteVerdict(False, UNSUPPORTED_FILTER, said)]
    resolved = [(each, references.resolve(key, each)) for each in rule.backends]
    mirrors = [(each, references.resolve(key, each.backend)) for each in filters.mirrors]
    destinations = tuple(
        Destination(to.backend, each.weight, each.request_headers, each.response_headers)
        for each, to in resolved
        if each.weight
    )
    mirrored = tuple(Mirror(to.backend, each.share) for each, to in mirrors if to.backend)
    found = [
        (
            rank(match, route.meta, place),
            HttpRule(
                name=f"{name}/{place[1]}",
                match=match,
                destinations=destinations,
                redirect=filters.redirect,
                rewrite=filters.rewrite,
                request_headers=filters.request_headers,
                response_headers=filters.response_headers,
                mirrors=mirrored,
                cors=filters.cors,
                retry=rule.retry,
                timeout_s=rule.timeout_s,
                try_timeout_s=rule.try_timeout_s,
            ),
        )
        for place, match in _places(index, rule)
    ]
    return found, [to.verdict for _, to in (*resolved, *mirrors)]


def _places(index: int, rule: RouteRule) -> Iterator[tuple[tuple[int, int], RequestMatch]]:
    """Matches with their places; the same one twice counts once."""
    for at, match in enumerate(rule.matches):
        if match not in rule.matches[:at]:
            yield (index, at), match
