"""The routes of the tour are understood whole, and say what the tour claims."""

from __future__ import annotations

from pathlib import Path

from agent.lab.tour import routes
from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import Connection
from control.model.request import RequestFacts, authorize, find_rule
from control.model.route import Front, HttpRule, WaypointKey
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from control.server.sources.folder import Folder
from tests.support.gateways import namespace, service

SHOP = Path(routes.__file__).parents[1] / "shop"
SHOPPER = SpiffeId("cluster.local", "shop", "shopper")


def front() -> Front:
    """Port 80 of reviews, as the tour has it."""
    folder = Folder()
    texts = {
        "reviews.yaml": namespace() + service("reviews", labels=routes.USE.replace("=", ": ")),
        "waypoint.yaml": (SHOP / "waypoint.yaml").read_text(),
        "canary.yaml": routes.CANARY,
        "readers.yaml": routes.READERS,
    }
    for name, text in texts.items():
        folder.load(name, text.encode())
    snapshot = folder.snapshot()
    assert not snapshot.problems
    changed = snapshot.objects.by_key()
    mesh, gateways = Mesh(Settings(), KnownCaptures(frozenset())), Gateways(Settings())
    gateways.apply(changed, mesh.apply(changed))
    found = gateways.waypoints[WaypointKey("shop", "waypoint")]
    return found.fronts["shop/reviews:80"]


def asked(path: str, method: str = "GET", **headers: str) -> RequestFacts:
    connection = Connection(SHOPPER, parse_address("10.0.0.1"), parse_address("10.0.0.2"), 80)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return RequestFacts(connection, method, "reviews.shop", path, names)


def rule(path: str, **headers: str) -> HttpRule:
    found = find_rule(front(), asked(path, **headers))
    assert found is not None
    return found


def test_each_rule_does_what_its_claim_says() -> None:
    redirect, retry = rule("/old").redirect, rule("/flaky").retry
    assert redirect is not None
    assert redirect.status == 301
    assert retry is not None
    assert 503 in retry.codes
    assert rule("/slow").timeout_s == 0.5
    assert [each.weight for each in rule("/").destinations] == [80, 20]
    chosen = rule("/", x_version="2").destinations
    assert [each.backend for each in chosen] == ["shop/reviews-v2:80"]


def test_readers_may_get_and_nothing_else() -> None:
    policies = front().policies
    assert str(authorize(policies, asked("/"))) == "allowed by shop/readers"
    assert not authorize(policies, asked("/", "DELETE")).allowed
