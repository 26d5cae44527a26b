"""The way of a request, told: which front, rule, policy and backends it meets."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from agent.cli.views.explanation import BadQuestion, Json, explain, find_front, question
from control.model.address import parse_address
from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy
from control.model.http_policy import HttpPolicyRule as PolicyRule
from control.model.identity import SpiffeId
from control.model.policy import Action, StringMatch, StringMatchKind
from control.model.route import (
    Backend,
    BackendEndpoint,
    Destination,
    Front,
    HttpRule,
    Layer,
    Redirect,
    RequestMatch,
    Spoken,
    TextMatch,
    Waypoint,
    WaypointKey,
)

CALLER = SpiffeId("cluster.local", "shop", "shopper")
KEY = WaypointKey("shop", "waypoint")
RULES = (
    HttpRule("shop/r/0/0", RequestMatch("/old"), redirect=Redirect(301)),
    HttpRule(
        "shop/r/1/0",
        RequestMatch("/", headers=(TextMatch("x-version", "2"),)),
        destinations=(Destination("shop/web-v2:80"),),
        timeout_s=5.0,
    ),
    HttpRule(
        "shop/r/2/0",
        RequestMatch("/cart"),
        destinations=(Destination("shop/web-v1:80", 80), Destination("shop/web-v2:80", 20)),
    ),
    HttpRule("shop/r/3/0", RequestMatch("/gone"), destinations=(Destination(""),)),
)
FRONT = Front(
    "shop/web:80",
    "shop/web.shop.svc.cluster.local",
    "web.shop.svc.cluster.local",
    (parse_address("172.20.0.9"), parse_address("fd72::9")),
    80,
    Layer.HTTP,
    "shop/web:80",
    RULES,
)
ENDPOINTS = (
    BackendEndpoint(parse_address("10.0.0.1"), 8080),
    BackendEndpoint(parse_address("10.0.0.2"), 8080, healthy=False),
)
WAYPOINT = Waypoint(
    KEY,
    SpiffeId("cluster.local", "shop", "waypoint"),
    MappingProxyType({FRONT.name: FRONT}),
    MappingProxyType({"shop/web-v1:80": Backend("shop/web-v1:80", "", Spoken.ANY, ENDPOINTS)}),
)
NO_ADMIN = HttpPolicy(
    "shop/no-admin",
    Action.DENY,
    (
        PolicyRule(
            (HttpClause((HttpMatch(paths=(StringMatch(StringMatchKind.PREFIX, "/admin"),)),)),)
        ),
    ),
)


def told(url: str, *headers: str, front: Front = FRONT, method: str = "GET") -> Json:
    asked = question(method, url, headers, CALLER)
    waypoint = replace(WAYPOINT, fronts=MappingProxyType({front.name: front}))
    found = find_front({KEY: waypoint}, asked)
    assert found is not None
    return explain(*found, asked)


@pytest.mark.parametrize(
    ("host", "is_found"),
    [
        ("web", True),
        ("web.shop", True),
        ("web.shop.svc", True),
        ("WEB.shop.svc.cluster.local", True),
        ("172.20.0.9", True),
        ("[fd72::9]", True),
        ("web.other", False),
        ("web.shop:81", False),
        ("shop", False),
    ],
)
def test_a_front_is_found_by_every_name_of_its_service(host: str, is_found: bool) -> None:
    asked = question("get", f"http://{host}/", (), CALLER)
    assert (find_front({KEY: WAYPOINT}, asked) is not None) is is_found


def test_a_bare_name_is_of_the_callers_own_namespace() -> None:
    for caller in (None, SpiffeId("cluster.local", "other", "shopper")):
        assert find_front({KEY: WAYPOINT}, question("GET", "http://web/", (), caller)) is None


def test_weights_are_told_as_shares_of_the_requests() -> None:
    found = told("http://web/cart/1")
    assert found["rule"] == "shop/r/2/0"
    assert found["backends"] == [
        {"backend": "shop/web-v1:80", "percent": 80.0, "endpoints": 2, "healthy": 1},
        {"backend": "shop/web-v2:80", "percent": 20.0, "endpoints": 0, "healthy": 0},
    ]
    assert "status" not in found


def test_a_header_chooses_and_what_a_rule_does_is_told() -> None:
    found = told("http://web/x", "X-Version: 2")
    assert found["rule"] == "shop/r/1/0"
    assert found["match"] == "/*, x-version=2"
    assert found["changes"] == ["timeout 5 s"]


@pytest.mark.parametrize(
    ("url", "status"),
    [("http://web/x", 404), ("http://web/old/a", 301), ("http://web/gone", 500)],
)
def test_answers_that_the_waypoint_gives_by_itself(url: str, status: int) -> None:
    assert told(url)["status"] == status


def test_a_policy_that_denies_is_named_before_a_rule_that_would_forward() -> None:
    front = replace(FRONT, rules=None, policies=(NO_ADMIN,))
    found = told("http://web//admin/../admin/x", front=front)
    assert (found["allowed"], found["policy"], found["status"]) == (False, "shop/no-admin", 403)
    assert "status" not in told("http://web/cart", front=front)


def test_a_front_without_a_route_goes_to_its_own_service() -> None:
    found = told("http://web/x", front=replace(FRONT, rules=None, backend="shop/web-v1:80"))
    assert found["match"] == "nobody has a route for it"
    assert [each["backend"] for each in found["backends"]] == ["shop/web-v1:80"]


def test_tcp_has_no_rules_and_no_status() -> None:
    shares = (Destination("shop/web-v1:80", 1), Destination("shop/web-v2:80", 3))
    found = told("http://web/x", front=replace(FRONT, layer=Layer.TCP, destinations=shares))
    assert [each["percent"] for each in found["backends"]] == [25.0, 75.0]
    assert "status" not in found


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("web/x", ()),
        ("ftp://web/x", ()),
        ("http://", ()),
        ("http://web:99999/", ()),
        ("http://[::1/", ()),
        ("http://web/a%2fb", ()),
        ("http://web/../b", ()),
        ("http://web/", ("no colon",)),
        ("http://web/", (": x",)),
        ("http://web/", tuple(f"h{n}: x" for n in range(65))),
    ],
)
def test_no_request_could_be_like_that(url: str, headers: tuple[str, ...]) -> None:
    with pytest.raises(BadQuestion):
        question("GET", url, headers, None)


def test_several_values_of_a_header_are_one() -> None:
    asked = question("GET", "http://web/?a=1&a=2&b=", ("A: 1", "a:2"), None)
    assert asked.headers == {"a": "1,2"}
    assert asked.query == {"a": "1", "b": ""}
