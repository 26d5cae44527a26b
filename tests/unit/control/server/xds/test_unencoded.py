"""Parts that wait to be encoded: backends first, waypoints in turn, of each name the latest."""

from __future__ import annotations

import random

import pytest

from control.model.route import WaypointDelta, WaypointKey
from control.server.xds import unencoded
from control.server.xds.unencoded import PARTS_MAX, TURN, Unencoded
from tests.unit.control.server.xds.envoy_model import KEY, OTHER, account, backend, front


def delta(key: WaypointKey = KEY, *names: str) -> WaypointDelta:
    fronts = {name: front(name, name) for name in names}
    return WaypointDelta(key, account(key), fronts, {name: backend(name) for name in names})


def names(parts: list[WaypointDelta]) -> list[str]:
    return [
        f"{kind} {name}"
        for part in parts
        for kind, values in (("backend", part.backends), ("front", part.fronts))
        for name in values
    ]


def test_backends_come_before_the_fronts_that_name_them_and_go_after() -> None:
    subject = Unencoded()
    subject.add(WaypointDelta(KEY, account(), {"old": None}, {"gone": None, "new": backend("new")}))
    assert names(list(subject.take())) == ["backend new", "front old", "backend gone"]
    assert not subject


def test_a_waypoint_without_anything_is_a_part_as_well() -> None:
    subject = Unencoded()
    subject.add(delta())
    assert [each.key for each in subject.take()] == [KEY]
    assert not subject


def test_of_one_name_the_latest_counts() -> None:
    subject = Unencoded()
    subject.add(delta(KEY, "a"))
    subject.add(WaypointDelta(KEY, account(), {"a": None}, {"a": None}))
    assert names(list(subject.take())) == ["front a", "backend a"]
    subject.add(WaypointDelta(KEY, account(), {}, {"a": None}))
    subject.add(WaypointDelta(KEY, account(), {}, {"a": backend("a", "2")}))
    (part,) = subject.take()
    assert part.backends == {"a": backend("a", "2")}


def test_a_publication_takes_some_and_waypoints_take_turns() -> None:
    subject = Unencoded()
    many = [str(number) for number in range(PARTS_MAX)]
    subject.add(delta(KEY, *many))
    subject.add(delta(OTHER, "a"))
    parts = list(subject.take())
    assert len(parts) == PARTS_MAX
    assert all(len(each.backends) + len(each.fronts) == 1 for each in parts), "small steps"
    assert [each.key for each in parts[TURN : TURN + 2]] == [OTHER, OTHER]
    assert OTHER not in subject
    assert KEY in subject
    subject.drop(KEY)
    assert not subject


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_in_between_ends_as_if_it_had_come_at_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unencoded, "PARTS_MAX", 5)
    monkeypatch.setattr(unencoded, "TURN", 2)
    rng = random.Random(seed)
    subject = Unencoded()
    wanted: dict[tuple[WaypointKey, str, str], object] = {}
    found: dict[tuple[WaypointKey, str, str], object] = {}

    def take() -> None:
        for part in subject.take():
            found.update({(part.key, "front", name): each for name, each in part.fronts.items()})
            found.update({(part.key, "back", name): each for name, each in part.backends.items()})

    for step in range(60):
        key, name = rng.choice((KEY, OTHER)), rng.choice("abcdef")
        made = rng.choice((None, backend(name, str(step))))
        shown = rng.choice((None, front(name, str(step))))
        wanted[key, "back", name], wanted[key, "front", name] = made, shown
        subject.add(WaypointDelta(key, account(key), {name: shown}, {name: made}))
        if rng.random() < 0.3:
            take()
    while subject:
        take()
    assert found == wanted
