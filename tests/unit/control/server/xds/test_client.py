"""A client is who its token says, whatever it calls itself."""

from __future__ import annotations

from datetime import UTC, datetime

from control.model.route import WaypointKey
from control.server.callers.tokens import Caller
from control.server.xds.client import Client, claimed_node
from control.server.xds.racks import Rack
from control.server.xds.session import DeltaSession
from control.server.xds.waypoint_view import WaypointView
from control.wire import discovery_pb2 as pb

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_client_has_its_callers_kind_tenant_and_words() -> None:
    session = DeltaSession(WaypointView(Rack()))
    node, waypoint = (
        Client("ztunnel~x", caller, "10.0.0.1:1", NOW, session)
        for caller in (Caller("n1", "s"), Caller("n1", "s", waypoint=WaypointKey("shop", "w")))
    )
    assert (node.kind, waypoint.kind) == ("node", "waypoint")
    assert node.tenant != waypoint.tenant
    assert node.words == {"node": "n1", "client": "ztunnel~x", "peer": "10.0.0.1:1"}
    assert waypoint.words["waypoint"] == "shop/w"
    assert waypoint.idle.is_set()


def test_a_node_says_its_name_or_nothing() -> None:
    node = pb.Node()
    assert claimed_node(node) == ""
    node.metadata["NODE_NAME"] = "n1"
    assert claimed_node(node) == "n1"
