"""Routes in words, for tables and answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from control.model.route import (
    Destination,
    Front,
    HeaderChange,
    HttpRule,
    Layer,
    PathKind,
    RequestMatch,
    TextMatch,
    TextMatchKind,
    Waypoint,
)

Json = dict[str, Any]


def match_words(rule: HttpRule) -> str:
    """Like `GET /cart/* on cart.shop, x-version=2, ?debug=1`."""
    match = rule.match
    path = " ".join(filter(None, (match.method, _path(match))))
    hosts = f" on {' '.join(rule.hosts)}" if rule.hosts else ""
    rest = [_text("", each) for each in match.headers] + [_text("?", each) for each in match.query]
    return ", ".join([path + hosts, *rest])


def _path(match: RequestMatch) -> str:
    match match.path_kind:
        case PathKind.EXACT:
            return match.path
        case PathKind.PREFIX:
            return f"{match.path.rstrip('/')}/*"
        case PathKind.REGEX:
            return f"~{match.path}"


def _text(mark: str, match: TextMatch) -> str:
    sign = "=" if match.kind is TextMatchKind.EXACT else "~"
    return f"{mark}{match.name}{sign}{match.value}"


def changes_of(rule: HttpRule) -> Iterator[str]:
    """All that a rule does to a request besides choosing where it goes."""
    if (redirect := rule.redirect) is not None:
        port = f":{redirect.port}" if redirect.port else ""
        target = redirect.path if redirect.path is not None else _prefix(redirect.prefix)
        yield f"redirect to {redirect.scheme or '*'}://{redirect.hostname or '*'}{port}{target}"
    if (rewrite := rule.rewrite) is not None:
        target = rewrite.path if rewrite.path is not None else _prefix(rewrite.prefix)
        yield f"rewritten to {rewrite.hostname or '*'}{target}"
    yield from _headers("request", rule.request_headers)
    yield from _headers("response", rule.response_headers)
    for mirror in rule.mirrors:
        yield f"{mirror.share:.0%} mirrored to {mirror.backend}"
    if rule.cors is not None:
        yield f"CORS for {' '.join(rule.cors.origins)}"
    if rule.retry is not None:
        codes = " ".join(map(str, rule.retry.codes))
        yield f"{rule.retry.attempts} more tries" + (f" after {codes}" if codes else "")
    if rule.timeout_s:
        yield f"timeout {rule.timeout_s:g} s"
    if rule.try_timeout_s:
        yield f"timeout of a try {rule.try_timeout_s:g} s"


def _prefix(prefix: str | None) -> str:
    return "/*" if prefix is None else f"{prefix.rstrip('/')}/*"


def _headers(whose: str, change: HeaderChange) -> Iterator[str]:
    yield from (f"{whose} header {name} removed" for name in change.remove)
    yield from (f"{whose} header {name} set to {value}" for name, value in change.set)
    yield from (f"{whose} header {name} added: {value}" for name, value in change.add)


def destination_words(destinations: Iterable[Destination]) -> str:
    """Like `80% shop/web-v1:80, 20% shop/web-v2:80`."""
    found = [each for each in destinations if each.weight]
    whole = sum(each.weight for each in found)
    if not whole:
        return "500"
    if len(found) == 1:
        return found[0].backend or "500"
    return ", ".join(
        f"{round(100 * each.weight / whole, 1):g}% {each.backend or '500'}" for each in found
    )


def front_rows(waypoint: Waypoint, front: Front) -> Iterator[Json]:
    """A row for each rule of a front, or one that says there is none."""
    namespace, _, rest = front.name.partition("/")
    common: Json = {
        "namespace": namespace,
        "service": rest.rpartition(":")[0],
        "port": front.port,
        "layer": front.layer.value,
        "waypoint": str(waypoint.key),
        "policies": [each.name for each in front.policies],
    }
    if front.layer is Layer.TCP or front.rules is None:
        given = front.destinations if front.layer is Layer.TCP else None
        to = front.backend if given is None else destination_words(given)
        yield {**common, "match": "*", "to": to, "route": "", "does": []}
        return
    for rule in front.rules:
        does = list(changes_of(rule))
        to = does[0] if rule.redirect is not None else destination_words(rule.destinations)
        told = {"match": match_words(rule), "to": to, "route": rule.name, "does": does}
        yield {**common, **told}
    if not front.rules:
        yield {**common, "match": "*", "to": "404", "route": "", "does": []}
