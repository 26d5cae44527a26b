"""Pods that had connections before a ztunnel's crash, in the order in which they get the next."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from agent import registry
from agent.datapath import sockets
from agent.datapath.sockets import ESTABLISHED, ListedSocket
from agent.enrol import uses
from agent.enrol.facts import Facts
from agent.enrol.plan import CapturePod
from agent.enrol.uses import PODS_PER_TURN, Uses
from control.model.address import Endpoint, parse_address
from tests.unit.agent.enrol.conftest import ADDRESS, POD

# As the ztunnel's listener looks to a captured pod.
TUNNEL = parse_address("127.64.80.92")


@pytest.fixture
def remotes(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """Namespace → the other end of its one connection, for captured pods 0 … 19."""
    found: dict[int, bytes] = {}
    for number in range(20):
        uid = f"uid-{number}"
        facts.known.put(replace(POD, uid=uid, cookie=number))
        facts.book.registered(uid, number, POD.addresses, True)
        facts.book.captured(CapturePod(uid, 7, number, POD.addresses))

    def connections(netns_fd: int) -> list[ListedSocket]:
        if netns_fd not in found:
            return []
        ends = Endpoint(ADDRESS, 4001), Endpoint(found[netns_fd], 80)
        return [ListedSocket(ESTABLISHED, *ends, 1, 2, b"")]

    monkeypatch.setattr(registry, "opened_again", lambda known: nullcontext(known.cookie))
    monkeypatch.setattr(sockets, "connections", connections)
    return found


def test_those_with_connections_come_first_the_latest_before_the_others(
    facts: Facts, remotes: dict[int, bytes]
) -> None:
    seen = Uses(facts)
    remotes[2] = remotes[18] = TUNNEL
    remotes[3] = ADDRESS  # to itself
    seen.look()
    assert seen.latest() == ["uid-2"]
    seen.look()
    assert seen.latest() == ["uid-18", "uid-2"]
    remotes.clear()
    remotes[2] = TUNNEL
    seen.look()
    assert seen.latest() == ["uid-2", "uid-18"], "what had some before a crash is remembered"


def test_a_turn_is_bounded_and_a_pod_that_left_is_forgotten(
    facts: Facts, remotes: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
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
