"""Pods that had connections before a ztunnel's crash, in the order in which they get the next."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from agent import registry
from agent.datapath import sockets
from agent.enrol.facts import Facts
from agent.enrol.plan import CapturePod
from agent.enrol.uses import PODS_PER_TURN, Uses
from tests.unit.agent.enrol.conftest import POD

made: dict[int, int] = {}  # connections that were ever made, by namespace


@pytest.fixture
def open_in(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Namespaces with a connection, of captured pods 0 … 19."""
    found: set[int] = set()
    for number in range(20):
        uid = f"uid-{number}"
        facts.known.put(replace(POD, uid=uid, cookie=number))
        facts.book.registered(uid, number, POD.addresses, True)
        facts.book.captured(CapturePod(uid, 7, number, POD.addresses))
    monkeypatch.setattr(registry, "opened_again", lambda known: nullcontext(known.cookie))
    made.clear()
    monkeypatch.setattr(
        sockets, "counted", lambda fd: sockets.Counted(int(fd in found), made.get(fd, 5))
    )
    return found


def test_those_with_connections_come_first_the_latest_before_the_others(
    facts: Facts, open_in: set[int]
) -> None:
    seen = Uses(facts)
    open_in |= {2, 18}
    seen.look()
    assert seen.latest() == ["uid-2"]
    seen.look()
    assert seen.latest() == ["uid-18", "uid-2"]
    open_in.remove(18)
    seen.look()
    assert seen.latest() == ["uid-2", "uid-18"], "what had some before a crash is remembered"


def test_connections_that_came_and_went_count_too(facts: Facts, open_in: set[int]) -> None:
    seen = Uses(facts)
    for _ in range(2):
        seen.look()
    assert seen.latest() == [], "what was made before the first look is long ago"
    made[3] = made[17] = 6
    for _ in range(2):
        seen.look()
    assert seen.latest() == ["uid-17", "uid-3"]
    made[3] = 7
    for _ in range(2):
        seen.look()
    assert seen.latest() == ["uid-3", "uid-17"]


def test_a_turn_is_bounded_and_a_pod_that_left_is_forgotten(
    facts: Facts, open_in: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    seen = Uses(facts)
    monkeypatch.setattr(seen, "_is_used", lambda known: looked.append(known.uid) or True)
    seen.look()
    assert len(looked) == PODS_PER_TURN
    facts.book.gone("uid-0")
    seen.look()
    seen.look()
    assert "uid-0" not in seen.latest()
    assert len(seen.latest()) == 19
