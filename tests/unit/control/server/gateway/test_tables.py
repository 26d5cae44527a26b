"""WaypointTables of waypoints: backends by need, and differences since they were taken."""

from __future__ import annotations

from control.model.route import Backend, Spoken, WaypointKey
from control.server.compile.settings import Settings
from control.server.gateway.tables import WaypointTables

WAY, GATE = WaypointKey("shop", "way"), WaypointKey("shop", "gate")
DB = Backend("shop/db:80", "shop/db", Spoken.ANY)


def tables() -> WaypointTables:
    found = WaypointTables(Settings())
    found.put_waypoint(WAY, True)
    found.put_waypoint(GATE, True)
    return found


def test_a_backend_is_told_to_those_that_need_it() -> None:
    found = tables()
    assert found.need(WAY, (), [DB.name]) == [DB.name]
    found.put_backend(DB)
    deltas = found.take_delta()
    assert dict(deltas[WAY].backends) == {DB.name: DB}
    assert dict(deltas[GATE].backends) == {}
    assert found.need(WAY, (), [DB.name]) == [], "another service needs it too"
    found.need(WAY, [DB.name], ())
    assert found.take_delta() == {}
    found.need(WAY, [DB.name], ())
    assert dict(found.take_delta()[WAY].backends) == {DB.name: None}
    assert not found.is_needed(DB.name)


def test_a_waypoint_that_went_before_anybody_knew_is_not_told_of() -> None:
    found = tables()
    found.put_waypoint(GATE, False)
    assert list(found.take_delta()) == [WAY]
    found.put_waypoint(WAY, False)
    assert found.take_delta()[WAY].is_gone
    assert found.waypoints() == {}


def test_one_that_went_and_came_in_one_step_has_not_changed() -> None:
    found = tables()
    found.take_delta()
    found.put_waypoint(WAY, False)
    found.put_waypoint(WAY, True)
    assert found.take_delta() == {}
