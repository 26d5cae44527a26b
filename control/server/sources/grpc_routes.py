"""GRPCRoute, read as a route of HTTP: a call of gRPC is a request for /SERVICE/METHOD."""

from __future__ import annotations

import re

from control.kit.re2 import quoted
from control.model.route import PathKind, RequestMatch
from control.server.sources.gateways import bounded, one_of
from control.server.sources.http_routes import (
    BACKENDS_MAX,
    MATCHES_MAX,
    read_header_matches,
    read_route,
    read_rule_backend,
)
from control.server.sources.objects import Meta, RouteObject
from control.server.sources.reader import Reader
from control.server.sources.route_filters import read_filters
from control.server.sources.route_refs import read_backend
from control.server.sources.route_specs import RouteRule
from control.server.sources.route_texts import checked_regex

GRPC_ROUTE = "GRPCRoute"
NAME_CHARS_MAX = 1024  # as the CRD

_SERVICE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_ANY_PART = "[^/]+"


def read_grpc_route(document: Reader, meta: Meta) -> RouteObject:
    return read_route(document, meta, _rule)


def _rule(rule: Reader, namespace: str) -> RouteRule:
    rule.only("name", "matches", "filters", "backendRefs")
    matches = tuple(_match(each) for each in bounded(rule, "matches", MATCHES_MAX))
    filters = read_filters(rule, namespace, read_backend)
    if filters.redirect or filters.rewrite or filters.cors:
        raise rule.invalid("filters", "a GRPCRoute changes headers and mirrors, no more")
    return RouteRule(
        name=rule.text("name"),
        matches=matches or (RequestMatch(),),
        filters=filters,
        backends=tuple(
            read_rule_backend(each, namespace)
            for each in bounded(rule, "backendRefs", BACKENDS_MAX)
        ),
    )


def _match(match: Reader) -> RequestMatch:
    match.only("method", "headers")
    path, kind = _path(match)
    return RequestMatch(path, kind, headers=read_header_matches(match))


def _path(match: Reader) -> tuple[str, PathKind]:
    """Path of the calls; everything if no method is asked for."""
    if "method" not in match:
        return "/", PathKind.PREFIX
    method = match.part("method")
    method.only("type", "service", "method")
    is_exact = one_of(method, "type", ("Exact", "RegularExpression"), "Exact") == "Exact"
    service, name = method.text("service"), method.text("method")
    if not service and not name:
        raise method.invalid("service", "service or method is needed")
    for key, text, shape in (("service", service, _SERVICE), ("method", name, _METHOD)):
        if len(text) > NAME_CHARS_MAX or (text and is_exact and not shape.fullmatch(text)):
            raise method.invalid(key, f"{text!r} is not the name of a {key}")
    if not is_exact:
        parts = [f"(?:{each})" if each else _ANY_PART for each in (service, name)]
        return checked_regex(method, "service", f"/{'/'.join(parts)}"), PathKind.REGEX
    if not name:
        return f"/{service}", PathKind.PREFIX
    if not service:
        return f"/{_ANY_PART}/{quoted(name)}", PathKind.REGEX
    return f"/{service}/{name}", PathKind.EXACT
