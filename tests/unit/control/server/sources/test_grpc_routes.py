"""GRPCRoutes in terms of HTTP."""

from __future__ import annotations

import re

import pytest

from control.model.route import PathKind, RequestMatch, TextMatch
from control.server.sources.objects import RouteObject
from tests.support.gateways import route
from tests.support.manifests import load, objects


def grpc(spec: str) -> str:
    return route(spec).replace("HTTPRoute", "GRPCRoute")


def read(spec: str) -> RouteObject:
    (found,) = objects(grpc(spec)).grpc_routes
    return found


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{}", RequestMatch()),
        (
            "{method: {service: shop.Cart, method: Add}}",
            RequestMatch("/shop.Cart/Add", PathKind.EXACT),
        ),
        ("{method: {service: shop.Cart}}", RequestMatch("/shop.Cart")),
        ("{method: {method: Add}}", RequestMatch("/[^/]+/Add", PathKind.REGEX)),
        (
            "{method: {type: RegularExpression, service: 'a|b', method: 'Get.*'}}",
            RequestMatch("/(?:a|b)/(?:Get.*)", PathKind.REGEX),
        ),
        (
            "{headers: [{name: X-A, value: b}]}",
            RequestMatch(headers=(TextMatch("x-a", "b"),)),
        ),
    ],
)
def test_matches(match: str, expected: RequestMatch) -> None:
    assert read(f"rules: [{{matches: [{match}]}}]").spec.rules[0].matches == (expected,)


def test_a_method_alone_is_that_of_any_service() -> None:
    (match,) = read("rules: [{matches: [{method: {method: Add_1}}]}]").spec.rules[0].matches
    assert re.fullmatch(match.path, "/a.b/Add_1")
    assert not re.fullmatch(match.path, "/a.b/Add_12")
    assert not re.fullmatch(match.path, "/a/b/Add_1")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rules: [{timeouts: {}}]", "unknown field spec.rules[0].timeouts"),
        ("rules: [{matches: [{path: {}}]}]", "unknown field"),
        ("rules: [{matches: [{method: {type: Exact}}]}]", "service or method is needed"),
        ("rules: [{matches: [{method: {service: a/b}}]}]", "is not the name of a service"),
        ("rules: [{matches: [{method: {method: a.b}}]}]", "is not the name of a method"),
        ("rules: [{filters: [{type: CORS, cors: {}}]}]", "no more"),
        (
            "rules: [{matches: [{method: {type: RegularExpression, service: '('}}]}]",
            "matches[0].method.service",
        ),
    ],
)
def test_a_field_that_is_wrong_or_unknown_is_named(spec: str, said: str) -> None:
    found = load(grpc(spec))
    assert found.objects.grpc_routes == ()
    assert said in found.problems[0].message
