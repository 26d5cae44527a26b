"""Rows about waypoints: how many follow, and whether they took all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cli.mesh import MeshDump
from agent.cli.views.waypoints import client_rows, refusal_of, state_of, waypoint_rows

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
DONE = {"acked": "7", "nacked": "3", "nacks": 1, "pending": 0, "in_flight": ""}
BUSY = {**DONE, "pending": 2}
REFUSED = {**DONE, "nacked": "8", "nacks": 2}


def client(pod: str, **types: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"waypoint~shop~gate~{pod}",
        "node": "n1",
        "peer": "10.0.0.1:1",
        "since": "2026-01-01T11:58:00Z",
        "types": types,
    }


def page(*clients: dict[str, Any], nack: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "namespace": "shop",
        "name": "gate",
        "account": "spiffe://cluster.local/ns/shop/sa/gate",
        "resources": {"Cluster": 2, "Listener": 4},
        "clients": list(clients),
        "nack": nack,
    }


@pytest.mark.parametrize(
    ("clients", "state"),
    [
        ((), "no process"),
        ((client("a", Cluster=DONE),), "in step"),
        ((client("a", Cluster=DONE), client("b", Cluster=BUSY)), "behind"),
        ((client("a", Cluster=BUSY), client("b", Listener=REFUSED)), "refused Listener"),
    ],
)
def test_a_waypoint_is_as_well_as_the_worst_of_its_processes(
    clients: tuple[dict[str, Any], ...], state: str
) -> None:
    assert state_of(page(*clients)) == state


def test_a_row_counts_processes_services_and_resources() -> None:
    fronts = [{"namespace": "shop", "name": "gate", "front": {"service": "shop/web"}}] * 2
    other = {"namespace": "shop", "name": "other", "front": {"service": "shop/db"}}
    pages = {"waypoints": [page(client("a"))], "routes": [*fronts, other, {**other, "front": None}]}
    (row,) = waypoint_rows(MeshDump(NOW, control=pages))
    assert (row["processes"], row["services"], row["resources"]) == (1, 1, 6)
    assert not list(waypoint_rows(MeshDump(NOW)))


def test_each_process_has_a_row() -> None:
    (row,) = client_rows(MeshDump(NOW), page(client("gate-1", Cluster=BUSY, Listener=REFUSED)))
    assert (row["pod"], row["node"], row["since"]) == ("gate-1", "n1", "2m")
    assert (row["pending"], row["nacks"], row["state"]) == (2, 3, "refused Listener")


def test_the_last_refusal_is_told_with_its_age() -> None:
    nack = {"client": "x", "type": "Listener", "at": "2026-01-01T11:59:00Z", "error": "bad"}
    assert refusal_of(MeshDump(NOW), page(nack=nack)) == "Listener, 1m ago: bad"
    assert refusal_of(MeshDump(NOW), page()) == ""
