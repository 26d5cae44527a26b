"""Names of ports, services and waypoints."""

from __future__ import annotations

from control.model.route import WaypointKey
from control.server.compile.settings import Settings
from control.server.gateway.names import port_name, service_name, waypoint_of
from tests.support.gateways import service
from tests.support.manifests import mesh


def test_a_waypoint_is_read_back_from_the_service_that_names_it() -> None:
    labels = "istio.io/use-waypoint: a.b, istio.io/use-waypoint-namespace: infra"
    found = mesh(service("web", labels=labels) + service("db"))
    web = found.services[service_name("shop", "web", Settings())]
    assert waypoint_of(web.waypoint, Settings()) == WaypointKey("infra", "a.b")
    assert port_name(web, 80) == "shop/web:80"
    db = found.services[service_name("shop", "db", Settings())]
    assert waypoint_of(db.waypoint, Settings()) is None
