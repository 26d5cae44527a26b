"""Envoys of a waypoint: nothing names what they do not have, and all end with what there is."""

from __future__ import annotations

import random

import pytest

from control.model.route import Backend, Front
from control.server.xds.session import DeltaSession
from control.server.xds.waypoint_view import WaypointView
from control.wire import discovery_pb2 as pb
from control.wire.types import (
    ADDRESS_TYPE,
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    POD_TYPE,
    ROUTE_TYPE,
    SCOPE_TYPE,
)
from tests.unit.control.server.xds.envoy_model import (
    KEY,
    OTHER,
    ModelEnvoy,
    World,
    backend,
    front,
)

WEB, API = {"web": backend("web")}, {"api": backend("api")}


@pytest.fixture
def world() -> World:
    world = World()
    world.show(WEB, {"web": front("web", "web")})
    return world


def settled(world: World) -> ModelEnvoy:
    envoy = ModelEnvoy(world)
    envoy.settle()
    envoy.told.clear()
    return envoy


def types(envoy: ModelEnvoy) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(url.rpartition(".")[2], added, removed) for url, added, removed in envoy.told]


def test_the_first_time_all_is_told_in_order(world: World) -> None:
    envoy = ModelEnvoy(world)
    envoy.settle()
    assert [url for url, added, _ in envoy.told if added] == [
        CLUSTER_TYPE,
        ENDPOINT_TYPE,
        LISTENER_TYPE,
        SCOPE_TYPE,
        ROUTE_TYPE,
    ]
    assert envoy.wrong() == envoy.broken == []


def test_a_route_to_a_new_cluster_waits_until_that_is_warm(world: World) -> None:
    envoy = settled(world)
    change = world.show({**WEB, **API}, {"web": front("web", "web", "api")})
    assert envoy.session.changed(change[KEY])
    assert envoy.hear()
    assert not envoy.hear(), "the cluster's endpoints were not asked for yet"
    envoy.settle()
    assert types(envoy) == [
        ("Cluster", ("api",), ()),
        ("ClusterLoadAssignment", ("api",), ()),
        ("RouteConfiguration", ("web",), ()),
    ]


def test_a_cluster_goes_after_the_route_that_named_it_is_acknowledged(world: World) -> None:
    envoy = settled(world)
    envoy.session.changed(world.show(API, {"web": front("web", "api")})[KEY])
    while not types(envoy) or types(envoy)[-1][0] != "RouteConfiguration":
        assert envoy.tell() or envoy.hear()
    assert not envoy.hear(), "not acknowledged yet"
    envoy.settle()
    assert types(envoy)[2:] == [("RouteConfiguration", ("web",), ()), ("Cluster", (), ("web",))]
    assert envoy.wrong() == envoy.broken == []


def test_a_service_that_goes_takes_scope_and_cluster_and_no_more_is_said(world: World) -> None:
    envoy = settled(world)
    envoy.session.changed(world.show({}, {})[KEY])
    envoy.settle()
    assert types(envoy) == [
        ("ScopedRouteConfiguration", (), ("web",)),
        ("Cluster", (), ("web",)),
    ], "names that were given back are not told of"
    assert envoy.wrong() == []


def test_clusters_that_are_refused_do_not_keep_routes_back(world: World) -> None:
    envoy = settled(world)
    envoy.session.changed(world.show({**WEB, **API}, {"web": front("web", "web", "api")})[KEY])
    assert envoy.hear("no such thing")
    envoy.settle()
    assert envoy.session.types[CLUSTER_TYPE].nacks == 1
    assert types(envoy)[-1] == ("RouteConfiguration", ("web",), ())


def test_one_that_cannot_be_read_keeps_out_nothing_but_itself(world: World) -> None:
    envoy = ModelEnvoy(world, response_bytes_max=10_000)
    envoy.settle()
    envoy.refuses = {"bad"}
    names = ("a", "b", "bad", "c", "d")
    world_of = {each: backend(each) for each in names}
    fronts = {each: front(each, each) for each in names if each != "bad"}
    envoy.session.changed(world.show(world_of, fronts)[KEY])
    envoy.settle()
    assert envoy.wrong() == [f"{CLUSTER_TYPE} bad"]
    assert envoy.broken == []
    assert envoy.session.types[CLUSTER_TYPE].nacks == 3, "of 5, of 3 and alone"
    envoy.session.changed(world.show({"a": world_of["a"]}, {"a": fronts["a"]})[KEY])
    envoy.settle()
    assert envoy.wrong() == []


def test_one_that_returns_is_told_the_differences(world: World) -> None:
    envoy = settled(world)
    world.show({**WEB, **API}, {"web": front("web", "web"), "api": front("api", "api")})
    envoy.connect()
    envoy.settle()
    told = [each for each in types(envoy) if each[1] or each[2]]
    assert told == [
        ("Cluster", ("api",), ()),
        ("ClusterLoadAssignment", ("api",), ()),
        ("ScopedRouteConfiguration", ("api",), ()),
        ("RouteConfiguration", ("api",), ()),
    ]


def test_one_waypoints_change_is_no_others(world: World) -> None:
    change = world.show(API, {"api": front("api", "api")}, OTHER)
    assert change.keys() == {OTHER}
    assert settled(world).wrong() == []
    other = ModelEnvoy(world, OTHER)
    other.settle()
    assert other.held[CLUSTER_TYPE].keys() == {"api"}


def test_nothing_of_the_mesh_is_shown(world: World) -> None:
    session = DeltaSession(WaypointView(world.racks.rack(KEY)))
    for url in (ADDRESS_TYPE, POD_TYPE):
        session.receive(pb.DeltaDiscoveryRequest(type_url=url))
        response = session.take()
        assert response is not None
        assert (response.added, response.removed) == (0, 0)


def test_a_waypoint_that_comes_back_is_followed_by_a_stream_that_never_left(world: World) -> None:
    envoy = settled(world)
    envoy.session.changed(world.remove()[KEY])
    envoy.settle()
    assert not any(envoy.held.values())
    envoy.session.changed(world.show(WEB, {"web": front("web", "web")})[KEY])
    envoy.settle()
    assert envoy.wrong() == []
    assert envoy.held[ROUTE_TYPE].keys() == {"web"}


def make_state(rng: random.Random) -> tuple[dict[str, Backend], dict[str, Front]]:
    names = [each for each in "abcdef" if rng.random() < 0.6]
    backends = {each: backend(each, rng.choice("12")) for each in names}
    fronts = {
        each: front(each, *rng.sample(names, rng.randint(0, min(3, len(names)))))
        for each in "uvwxyz"
        if rng.random() < 0.6
    }
    return backends, fronts


@pytest.mark.parametrize("seed", range(30))
def test_all_end_with_what_there_is_and_nothing_names_what_is_not(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    envoys = [ModelEnvoy(world, response_bytes_max=rng.choice((100, 10_000))) for _ in range(3)]
    for _ in range(300):
        envoy = rng.choice(envoys)
        match rng.choice(("change", *("tell",) * 4, *("hear",) * 4, "lose")):
            case "change":
                change = world.remove() if rng.random() < 0.05 else world.show(*make_state(rng))
                for each in envoys:
                    each.session.changed(change.get(KEY, {}))
            case "tell":
                envoy.tell()
            case "hear":
                envoy.hear()
            case "lose" if rng.random() < 0.3:
                envoy.connect()
    for each in envoys:
        each.settle()
        assert each.wrong() == []
        assert each.broken == []
        assert all(not each.session.types[url].way.due() for url in KINDS_OF_ENVOY[:1])


def test_scopes_are_told_whole_even_to_one_that_names_some(world: World) -> None:
    session = DeltaSession(WaypointView(world.racks.rack(KEY)))
    session.receive(
        pb.DeltaDiscoveryRequest(type_url=SCOPE_TYPE, resource_names_subscribe=["nothing"])
    )
    response = session.take()
    assert response is not None
    assert response.added == 1
