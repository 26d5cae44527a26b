"""Gateways that were changed step by step are those that are made from nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.identity import SpiffeId
from control.model.route import Backend, Front, Waypoint, WaypointDelta, WaypointKey
from control.server.compile.mesh import Mesh
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from tests.support.mesh_worlds import World

SETTINGS = Settings()
STEPS = 8


class Follower:
    """Takes deltas over as a reader does."""

    def __init__(self) -> None:
        self.accounts: dict[WaypointKey, SpiffeId] = {}
        self.fronts: dict[WaypointKey, dict[str, Front]] = {}
        self.backends: dict[WaypointKey, dict[str, Backend]] = {}

    def take(self, deltas: Mapping[WaypointKey, WaypointDelta]) -> None:
        for key, delta in deltas.items():
            assert delta.key == key
            if delta.is_gone:
                del self.accounts[key], self.fronts[key], self.backends[key]
                continue
            is_new = key not in self.accounts
            assert is_new or delta.fronts or delta.backends, "no news"
            self.accounts[key] = delta.account
            for name, front in delta.fronts.items():
                _put(self.fronts.setdefault(key, {}), name, front)
            for name, backend in delta.backends.items():
                _put(self.backends.setdefault(key, {}), name, backend)
            self.fronts.setdefault(key, {})
            self.backends.setdefault(key, {})

    @property
    def waypoints(self) -> dict[WaypointKey, Waypoint]:
        return {
            key: Waypoint(key, account, self.fronts[key], self.backends[key])
            for key, account in self.accounts.items()
        }


def _put(table: dict[str, Front] | dict[str, Backend], name: str, value: object) -> None:
    known: dict[str, object] = table  # type: ignore[assignment]  # either of them
    assert value != known.get(name), f"{name} is no news"
    known.pop(name, None)
    if value is not None:
        known[name] = value


def made_of(world: World) -> Gateways:
    mesh, found = Mesh(SETTINGS, world.reported), Gateways(SETTINGS)
    found.apply(world.objects, mesh.apply(world.objects))
    return found


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_nothing_of_the_past_shows_in_the_present(seed: int) -> None:
    draw = random.Random(seed)
    world, reader = World(draw), Follower()
    mesh, gateways = Mesh(SETTINGS, world.reported), Gateways(SETTINGS)
    for step in range(STEPS):
        changed, reported = world.change(60 if step == 0 else draw.choice([1, 1, 2, 4]))
        reader.take(gateways.apply(changed, mesh.apply(changed, reported)))
        expected = made_of(world)
        assert gateways.waypoints == expected.waypoints == reader.waypoints
        assert gateways.statuses == expected.statuses
        assert set(gateways.keys()) <= world.objects.keys()
        for each in expected.waypoints.values():
            check(each)


def check(waypoint: Waypoint) -> None:
    """All that fronts name is there, and nothing else."""
    named: set[str] = set()
    for front in waypoint.fronts.values():
        if front.rules is None and front.destinations is None:
            named.add(front.backend)
        named.update(each.backend for each in front.destinations or ())
        for rule in front.rules or ():
            named.update(each.backend for each in rule.destinations)
            named.update(each.backend for each in rule.mirrors)
    assert named - {""} == waypoint.backends.keys()


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_what_has_gone_leaves_nothing_behind(seed: int) -> None:
    world = World(random.Random(seed))
    mesh, gateways = Mesh(SETTINGS, world.reported), Gateways(SETTINGS)
    for _ in range(3):
        changed, reported = world.change(60)
        gateways.apply(changed, mesh.apply(changed, reported))
    changed = world.put(dict.fromkeys(world.objects))
    gateways.apply(changed, mesh.apply(changed))
    assert [name for name, size in sizes(gateways, "gateways") if size] == []


def sizes(value: object, name: str) -> Iterator[tuple[str, int]]:
    """Number of entries in each container that it holds."""
    if isinstance(value, dict | set | list):
        yield name, len(value)
    elif type(value).__module__.startswith("control.server.gateway"):
        slots = getattr(type(value), "__slots__", ())
        found = {each: getattr(value, each) for each in slots} if slots else vars(value)
        for each, part in found.items():
            yield from sizes(part, f"{name}.{each}")
