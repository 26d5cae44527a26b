"""Waypoints as JSON, and back: nothing is lost, and what is none is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from control.kit.errors import WireError
from control.model.address import parse_address, parse_block
from control.model.http_policy import (
    HttpClause,
    HttpMatch,
    HttpPolicy,
    HttpPolicyRule,
    PathTemplate,
    ValueMatch,
)
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Match,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from control.model.route import (
    Backend,
    BackendEndpoint,
    Cors,
    Destination,
    Front,
    HeaderChange,
    Layer,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    Spoken,
    TextMatch,
    TextMatchKind,
    Waypoint,
    WaypointKey,
)
from control.model.route import HttpRule as Route
from control.model.workload import Locality
from control.wire.waypoint_page import rows_of, waypoints_of

TEXT = StringMatch(StringMatchKind.PREFIX, "a")
MATCH = HttpMatch(
    l4=Match(
        principals=(TEXT,),
        service_accounts=(ServiceAccountMatch("shop", "web"),),
        source_ips=(parse_block("10.0.0.0/8"),),
        not_destination_ports=(80, 81),
    ),
    methods=(TEXT,),
    not_methods=(TEXT,),
    paths=(TEXT, PathTemplate("/v1/{*}")),
    not_paths=(PathTemplate("/{**}"),),
    hosts=(TEXT,),
    not_hosts=(TEXT,),
    headers=(ValueMatch(("x",), (TEXT,), (TEXT,)),),
    request_principals=(TEXT,),
    not_request_principals=(TEXT,),
    claims=(ValueMatch(("a", "b"), (TEXT,)),),
)
POLICY = HttpPolicy("shop/p", Action.DENY, (HttpPolicyRule((HttpClause((MATCH,)),)),), dry_run=True)
CHANGE = HeaderChange(("a",), (("b", "1"),), (("c", "2"),))
RULE = Route(
    name="shop/r/0/0",
    match=RequestMatch(
        "/a",
        PathKind.REGEX,
        "GET",
        (TextMatch("x", "1", TextMatchKind.REGEX),),
        (TextMatch("q", "1"),),
    ),
    hosts=("*.shop",),
    destinations=(Destination("shop/web:80", 3, CHANGE, CHANGE), Destination("")),
    redirect=Redirect(301, "https", "h", 8443, prefix="/x"),
    rewrite=Rewrite("h", path="/y"),
    request_headers=CHANGE,
    response_headers=CHANGE,
    mirrors=(Mirror("shop/web:80", 0.5),),
    cors=Cors(("https://*.a",), ("GET",), ("x",), ("y",), 7, credentials=True),
    retry=Retry(1, (503,), 0.1),
    timeout_s=1.5,
    try_timeout_s=0,
)
FRONT = Front(
    "shop/web:80",
    "shop/web.shop.svc.cluster.local",
    "web.shop.svc.cluster.local",
    (parse_address("172.20.0.1"), parse_address("fd00::1")),
    80,
    Layer.HTTP,
    "shop/web:80",
    (RULE,),
    None,
    (POLICY,),
)
TCP = replace(FRONT, name="shop/db:81", layer=Layer.TCP, rules=None, destinations=(), policies=())
WEB = SpiffeId("cluster.local", "shop", "web")
BACKEND = Backend(
    "shop/web:80",
    "shop/web.shop.svc.cluster.local",
    Spoken.ANY,
    (
        BackendEndpoint(
            parse_address("10.0.0.1"), 8080, WEB, Locality("eu", "eu-1"), 2, healthy=False
        ),
        BackendEndpoint(parse_address("fd00::2"), 8080),
    ),
)
WHOLE = Waypoint(
    WaypointKey("shop", "waypoint"),
    SpiffeId("cluster.local", "shop", "waypoint"),
    MappingProxyType({TCP.name: TCP, FRONT.name: FRONT}),
    MappingProxyType({BACKEND.name: BACKEND}),
)


@pytest.mark.parametrize("value", [WHOLE, Waypoint(WHOLE.key, WHOLE.account)])
def test_a_waypoint_comes_back_as_it_was(value: Waypoint) -> None:
    rows = json.loads(json.dumps([*rows_of([value])]))
    assert waypoints_of(rows) == {value.key: value}
    assert waypoints_of(reversed(rows)) == {value.key: value}


def test_addresses_and_identities_are_text() -> None:
    about, tcp, web, backend = rows_of([WHOLE])
    assert about["account"] == "spiffe://cluster.local/ns/shop/sa/waypoint"
    assert web["front"]["addresses"] == ["172.20.0.1", "fd00::1"]
    assert backend["backend"]["endpoints"][0]["identity"] == str(WEB)
    assert [each["front"]["name"] for each in (tcp, web)] == ["shop/db:81", "shop/web:80"]


def test_rows_of_waypoints_that_nobody_names_are_left_out() -> None:
    other = replace(WHOLE, key=WaypointKey("shop", "other"))
    rows = [*rows_of([WHOLE]), *list(rows_of([other]))[1:]]
    assert waypoints_of(rows) == {WHOLE.key: WHOLE}


def _spoilt(path: tuple[str | int, ...], value: Any) -> Any:
    told: Any = json.loads(json.dumps([*rows_of([WHOLE])]))
    place = told
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return told


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((0, "name"), None),
        ((0, "account"), "nobody"),
        ((1, "front"), 7),
        ((1, "front", "layer"), "udp"),
        ((1, "front", "addresses"), ["here"]),
        ((2, "front", "policies", 0, "action"), 9),
        ((2, "front", "policies", 0, "rules", 0, "clauses", 0, "matches_any", 0, "paths"), [{}]),
        ((2, "front", "rules", 0, "timeout_s"), "soon"),
        ((3, "backend", "endpoints", 0, "port"), "http"),
        ((3, "backend", "endpoints", 0, "identity"), "x"),
    ],
)
def test_what_is_none_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    with pytest.raises(WireError, match="not a waypoint"):
        waypoints_of(_spoilt(path, value))
