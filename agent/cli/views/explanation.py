"""The way of one request through a waypoint, told step by step: front, rule, policy, backends.

Nothing is sent: the answer is what the mesh has told its waypoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from agent.cli.views.routes import changes_of, match_words
from control.model.address import format_address, parse_address
from control.model.identity import SpiffeId
from control.model.policy import Connection
from control.model.request import BadPath, RequestFacts, authorize, find_rule, normal_path
from control.model.route import Backend, Destination, Front, HttpRule, Layer, Waypoint, WaypointKey

_PORTS = {"http": 80, "https": 443}
NOWHERE = parse_address("0.0.0.0")
HEADERS_MAX = 64
Json = dict[str, Any]


class BadQuestion(ValueError):
    """A request that cannot be one: its text says why."""


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """A request that somebody might make. `caller` None: one from outside the mesh."""

    method: str
    host: str
    port: int
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    caller: SpiffeId | None


def question(
    method: str, url: str, headers: Iterable[str], caller: SpiffeId | None
) -> AskedRequest:
    """`url` with its scheme and host; each header as `name: value`. Raises BadQuestion."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise BadQuestion(f"{url!r} is no URL: {exc}") from exc
    if parts.scheme not in _PORTS or not host:
        raise BadQuestion(f"{url!r} is no URL like http://reviews.shop/path")
    given: dict[str, str] = {}
    for each in headers:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise BadQuestion(f"{each!r} is no header like 'name: value'")
        key, value = name.strip().lower(), value.strip()
        given[key] = f"{given[key]},{value}" if key in given else value
    if len(given) > HEADERS_MAX:
        raise BadQuestion(f"more than {HEADERS_MAX} headers")
    try:
        path = normal_path(parts.path or "/")
    except BadPath as exc:
        raise BadQuestion(f"400, a waypoint refuses it: {exc}") from exc
    query = dict(reversed(parse_qsl(parts.query, keep_blank_values=True)))
    return AskedRequest(
        method.upper(), host, port or _PORTS[parts.scheme], path, query, given, caller
    )


def find_front(
    waypoints: Mapping[WaypointKey, Waypoint], asked: AskedRequest
) -> tuple[Waypoint, Front] | None:
    """The front that a client of the caller's namespace would reach."""
    for waypoint in waypoints.values():
        for front in waypoint.fronts.values():
            if front.port == asked.port and asked.host in _names(front, asked.caller):
                return waypoint, front
    return None


def _names(front: Front, caller: SpiffeId | None) -> Iterator[str]:
    """Every name that a resolver of the caller's would take for this one, and its addresses."""
    namespace, _, rest = front.name.partition("/")
    name = rest.rpartition(":")[0]
    yield front.hostname
    yield f"{name}.{namespace}"
    yield f"{name}.{namespace}.svc"
    if caller is not None and caller.namespace == namespace:
        yield name
    yield from (format_address(each) for each in front.addresses)


def explain(waypoint: Waypoint, front: Front, asked: AskedRequest) -> Json:
    """One object: `front`, `rule`, `policy`, and what follows. `status` is that of an answer which
    the waypoint gives by itself."""
    told: Json = {
        "waypoint": str(waypoint.key),
        "front": front.name,
        "service": front.service,
        "layer": front.layer.value,
    }
    request = _request(front, asked)
    verdict = authorize(front.policies, request)
    told["allowed"], told["policy"], told["verdict"] = verdict.allowed, verdict.policy, str(verdict)
    told["dry_run"] = list(verdict.dry_run)
    if front.layer is Layer.TCP:
        shares = _tcp(front)
        told |= {"rule": "", "match": "a TCP connection"}
        return told | _forwarded(waypoint, shares)
    rule = find_rule(front, request)
    if rule is None and front.rules is not None:
        return told | {"rule": "", "match": "no rule matches", "status": 404}
    if not verdict.allowed:
        told["status"] = 403
    if rule is None:
        told |= {"rule": "", "match": "nobody has a route for it"}
        return told | _forwarded(waypoint, (Destination(front.backend),))
    return told | _ruled(waypoint, rule)


def _request(front: Front, asked: AskedRequest) -> RequestFacts:
    address = front.addresses[0] if front.addresses else NOWHERE
    connection = Connection(asked.caller, NOWHERE, address, front.port)
    host = asked.headers.get("host", asked.host)
    return RequestFacts(connection, asked.method, host, asked.path, asked.headers, asked.query)


def _tcp(front: Front) -> tuple[Destination, ...]:
    return (Destination(front.backend),) if front.destinations is None else front.destinations


def _ruled(waypoint: Waypoint, rule: HttpRule) -> Json:
    told: Json = {"rule": rule.name, "match": match_words(rule), "changes": list(changes_of(rule))}
    if rule.redirect is not None:
        return {**told, "status": rule.redirect.status, "backends": []}
    return told | _forwarded(waypoint, rule.destinations)


def _forwarded(waypoint: Waypoint, destinations: tuple[Destination, ...]) -> Json:
    whole = sum(each.weight for each in destinations)
    if not any(each.weight and each.backend for each in destinations):
        return {"backends": [], "status": 500}
    return {
        "backends": [
            _backend(each, whole, waypoint.backends.get(each.backend))
            for each in destinations
            if each.weight
        ]
    }


def _backend(destination: Destination, whole: int, backend: Backend | None) -> Json:
    endpoints = () if backend is None else backend.endpoints
    return {
        "backend": destination.backend or "(cannot be had: 500)",
        "percent": round(100 * destination.weight / whole, 1),
        "endpoints": len(endpoints),
        "healthy": sum(1 for each in endpoints if each.healthy),
    }
