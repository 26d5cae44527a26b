from __future__ import annotations

from control.model.route import HttpRule, Layer, PathKind, RequestMatch, WaypointDelta
from control.server.envoy.descriptors import decode
from control.server.envoy.resources import Changes, KnownResources, of
from control.server.envoy.settings import ShapeSettings
from control.wire.types import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SCOPE_TYPE,
)
from tests.unit.control.server.envoy.worlds import backend, delta, front

WEB, API = "shop/web:80", "shop/api:80"
TUNNELS = {
    "tunnel|10.0.0.1:80",
    "tunnel|[fd00::1]:80",
    "tunnel|web.shop.svc.cluster.local:80",
}
BY_NAME = "tunnel|api.shop.svc.cluster.local:80"


def names(changes: Changes) -> dict[str, set[str]]:
    return {each: set(changes[each]) for each in changes if changes[each]}


def gone(changes: Changes) -> set[str]:
    return {name for each in changes.values() for name, data in each.items() if data is None}


def started(known: KnownResources) -> Changes:
    return of(delta({WEB: front()}, {WEB: backend()}), known)


def owner(changes: Changes, scope: str) -> str:
    data = changes[SCOPE_TYPE][scope]
    assert data is not None
    (host,) = decode(SCOPE_TYPE, data)["route_configuration"]["virtual_hosts"]
    found: str = host["routes"][0]["metadata"]["filter_metadata"]["tulle"]["front"]
    return found


def test_a_start_is_everything_in_envoys_order() -> None:
    changes = started(KnownResources())
    assert tuple(changes) == KINDS_OF_ENVOY
    assert names(changes) == {
        CLUSTER_TYPE: {WEB, "in_http", "in_tcp", "connect_originate"},
        ENDPOINT_TYPE: {WEB},
        LISTENER_TYPE: {"connect_terminate", "in_http", "in_tcp", "connect_originate"},
        SCOPE_TYPE: {*TUNNELS, f"requests|{WEB}"},
        ROUTE_TYPE: {WEB},
    }


def test_the_same_again_is_nothing() -> None:
    known = KnownResources()
    started(known)
    assert names(started(known)) == {}


def test_a_service_more_touches_its_own_alone() -> None:
    known = KnownResources()
    started(known)
    changes = of(delta({API: front(API, addresses=())}, {API: backend(API)}), known)
    assert names(changes) == {
        CLUSTER_TYPE: {API},
        ENDPOINT_TYPE: {API},
        SCOPE_TYPE: {BY_NAME, f"requests|{API}"},
        ROUTE_TYPE: {API},
    }


def test_rules_are_a_change_of_routes_alone() -> None:
    known = KnownResources()
    started(known)
    assert names(of(delta({WEB: front(rules=())}), known)) == {ROUTE_TYPE: {WEB}}


def test_what_goes_is_named() -> None:
    known = KnownResources()
    started(known)
    changes = of(delta({WEB: None}, {WEB: None}), known)
    assert gone(changes) == {WEB, f"requests|{WEB}", *TUNNELS}
    assert known.fronts == {}
    assert known.wanted == {}
    assert not of(delta({WEB: None}, {WEB: None}), known)[ROUTE_TYPE]


def test_a_front_that_turns_to_tcp_has_no_routes() -> None:
    known = KnownResources()
    started(known)
    changes = of(delta({WEB: front(layer=Layer.TCP)}), known)
    assert gone(changes) == {WEB, f"requests|{WEB}"}
    assert set(changes[SCOPE_TYPE]) == {*TUNNELS, f"requests|{WEB}"}


def test_an_authority_is_the_first_fronts_by_name() -> None:
    known = KnownResources()
    shared = "tunnel|10.0.0.1:80"
    assert owner(started(known), shared) == WEB
    changes = of(delta({API: front(API)}), known)
    assert owner(changes, shared) == API
    changes = of(delta({API: None}), known)
    assert owner(changes, shared) == WEB
    assert gone(changes) == {BY_NAME, f"requests|{API}", API}


def test_addresses_that_change_hands_in_one_difference() -> None:
    known = KnownResources()
    of(delta({WEB: front(), API: front(API, addresses=())}), known)
    changes = of(delta({WEB: front(addresses=()), API: front(API)}), known)
    assert {owner(changes, each) for each in ("tunnel|10.0.0.1:80", "tunnel|[fd00::1]:80")} == {API}
    assert gone(changes) == set()


def test_a_front_that_envoy_cannot_be_told_refuses_alone() -> None:
    bad = HttpRule("bad", RequestMatch("/(?=a)", PathKind.REGEX))
    changes = of(delta({WEB: front(rules=(bad,)), API: front(API, addresses=())}), KnownResources())
    routes = {name: decode(ROUTE_TYPE, data or b"") for name, data in changes[ROUTE_TYPE].items()}
    assert routes[WEB]["virtual_hosts"][0]["routes"][0]["direct_response"] == {"status": 500}
    assert "route" in routes[API]["virtual_hosts"][0]["routes"][0]


def test_a_waypoint_that_goes_takes_all_with_it() -> None:
    known = KnownResources()
    changes = started(known)
    last = of(delta(is_gone=True), known)
    assert names(last) == names(changes)
    assert gone(last) == {name for each in changes.values() for name in each}
    assert names(started(known)) == names(changes)


def test_settings_change_what_is_constant() -> None:
    known = KnownResources()
    started(known)
    nothing: WaypointDelta = delta()
    assert names(of(nothing, known, ShapeSettings(access_log=False))) == {
        LISTENER_TYPE: {"connect_terminate", "in_http", "in_tcp"}
    }
