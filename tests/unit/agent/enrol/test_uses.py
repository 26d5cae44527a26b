"""Pods that had connections before a ztunnel's crash, in the order in which they get the next."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from agent import registry
from agent.datapath import sockets
from agent.enrol import uses
from agent.enrol.facts import Facts
from agent.enrol.plan import CapturePod
from agent.enrol.uses import PODS_PER_TURN, Uses
from tests.unit.agent.enrol.conftest import POD


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
    monkeypatch.setattr(sockets, "established", lambda netns_fd: int(netns_fd in found))
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


def test_a_turn_is_bounded_and_a_pod_that_left_is_forgotten(
    facts: Facts, open_in: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(uses, "_is_used", lambda known: looked.append(known.uid) or True)
    seen = Uses(facts)
    seen.look()
    assert len(looked) == PODS_PER_TURN
    facts.book.gone("uid-0")
    seen.look()
    seen.look()
    assert "uid-0" not in seen.latest()
    assert len(seen.latest()) == 19
