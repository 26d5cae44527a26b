"""Shelves of waypoints: encoded unseen, shown at once, each for its own waypoint."""

from __future__ import annotations

import pytest

from control.model.route import WaypointDelta
from control.server.xds import unencoded
from control.server.xds.racks import Racks
from control.wire.types import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    ROUTE_TYPE,
)
from tests.unit.control.server.xds.envoy_model import (
    KEY,
    OTHER,
    PlainEncoder,
    World,
    account,
    backend,
    finish,
    front,
)


def test_nothing_is_seen_before_it_is_committed() -> None:
    racks = Racks(PlainEncoder)
    delta = WaypointDelta(KEY, account(), {"web": front("web", "web")}, {"web": backend("web")})
    assert len(list(racks.steps([delta]))) > 1, "in steps"
    assert KEY not in racks
    assert not any(each.entries for each in racks.rack(KEY).shelves.values())
    change = finish(racks.commit(1))
    assert KEY in racks
    assert racks.accounts == {KEY: account()}
    assert change[KEY][ROUTE_TYPE] == {"web"}
    assert racks.count(CLUSTER_TYPE) == 1


def test_a_change_is_of_what_differs_and_of_its_waypoint() -> None:
    world = World()
    world.show({"web": backend("web", "1")}, {}, OTHER)
    world.show({"web": backend("web", "1")}, {"web": front("web", "web")})
    assert world.show({"web": backend("web", "1")}, {"web": front("web", "web")}) == {}
    change = world.show({"web": backend("web", "1")}, {"web": front("web")})
    assert change == {KEY: {ROUTE_TYPE: frozenset({"web"})}}
    assert world.racks.count(CLUSTER_TYPE) == 2


def test_a_waypoint_without_fronts_is_one() -> None:
    world = World()
    assert world.show({}, {}) == {KEY: {LISTENER_TYPE: frozenset({"connect"})}}
    assert KEY in world.racks


def test_one_that_goes_leaves_nothing_and_begins_anew() -> None:
    world = World()
    world.show({"web": backend("web")}, {"web": front("web", "web")})
    rack = world.racks.rack(KEY)
    change = world.remove()
    assert KEY not in world.racks
    assert change[KEY].keys() == set(KINDS_OF_ENVOY)
    assert not any(each.entries for each in rack.shelves.values())
    assert world.remove() == {}
    world.show({}, {})
    assert world.racks.rack(KEY) is rack, "a stream may look at it"
    assert rack.shelves[LISTENER_TYPE].entries, "by an encoder that remembers nothing"


def test_a_rack_that_nobody_looks_at_is_forgotten() -> None:
    world = World()
    world.show({}, {})
    world.remove()
    assert not world.racks._racks
    assert not world.racks._looked_at
    assert world.racks.rack(KEY) is not None


def test_a_new_waypoint_is_shown_whole_and_later_changes_part_by_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unencoded, "PARTS_MAX", 2)
    world = World()
    names = "abc"
    backends = {each: backend(each) for each in names}
    fronts = {each: front(each, each) for each in names}
    assert world.show(backends, fronts) == {}
    assert world.apply() == {}
    assert KEY not in world.racks, "an Envoy that came back would lose what is not encoded yet"
    assert world.racks.has_more
    assert world.apply()[KEY][CLUSTER_TYPE] == set(names)
    assert KEY in world.racks
    assert not world.racks.has_more
    change = world.show({each: backend(each, "2") for each in names}, fronts)
    assert len(change[KEY][ENDPOINT_TYPE]) == 2
    assert world.remove()[KEY][ENDPOINT_TYPE] == set(names), "what waits is forgotten"
    assert not world.racks.has_more
    assert world.apply() == {}


def test_one_that_goes_before_it_was_shown_never_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unencoded, "PARTS_MAX", 1)
    world = World()
    world.show({"a": backend("a")}, {"a": front("a", "a")})
    assert world.remove() == {}
    assert world.apply() == {}
    assert KEY not in world.racks
    assert not world.racks._encoded
