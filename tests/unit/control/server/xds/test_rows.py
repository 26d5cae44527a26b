"""Rows of clients and waypoints: who follows which, how far, and what was not taken."""

from __future__ import annotations

from datetime import UTC, datetime

from control.model.route import WaypointKey
from control.server.callers.tokens import Caller
from control.server.xds.client import Client, Nack
from control.server.xds.rows import client_row, waypoint_rows
from control.wire.types import CLUSTER_TYPE
from tests.unit.control.server.xds.envoy_model import KEY, OTHER, ModelEnvoy, World, backend, front

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def client(envoy: ModelEnvoy, name: str, waypoint: WaypointKey | None = KEY) -> Client:
    return Client(name, Caller("n1", "s", waypoint=waypoint), "10.0.0.1:1", NOW, envoy.session)


def test_a_waypoints_row_has_its_clients_and_no_others() -> None:
    world = World()
    world.show({"web": backend("web")}, {"web": front("web", "web")})
    world.show({}, {}, OTHER)
    envoy = ModelEnvoy(world)
    envoy.settle()
    clients = [client(envoy, "b"), client(envoy, "a"), client(envoy, "z", None)]
    nack = Nack("a", CLUSTER_TYPE, NOW, "bad cluster")
    other, row = waypoint_rows(world.racks, clients, {KEY: nack})
    assert (other["name"], other["clients"], other["nack"]) == ("other", [], None)
    assert row["account"] == "spiffe://cluster.local/ns/shop/sa/waypoint"
    assert row["resources"]["Cluster"] == 1
    assert [each["id"] for each in row["clients"]] == ["a", "b"]
    assert row["nack"] == {
        "client": "a",
        "type": "Cluster",
        "at": "2026-01-01T00:00:00Z",
        "error": "bad cluster",
    }


def test_a_clients_row_says_how_far_it_is() -> None:
    world = World()
    world.show({"web": backend("web")}, {"web": front("web", "web")})
    envoy = ModelEnvoy(world)
    envoy.settle()
    row = client_row(client(envoy, "a"))
    assert (row["node"], row["waypoint"]) == ("n1", "shop/waypoint")
    endpoints = row["types"]["ClusterLoadAssignment"]
    assert (endpoints["asked"], endpoints["known"], endpoints["wildcard"]) == (1, 1, False)
    assert endpoints["acked"]
