"""A pod's connections from before its capture."""

from __future__ import annotations

import pytest

from agent.datapath.sockets import ESTABLISHED, ListedSocket
from agent.enrol.earlier import Connections, Earlier, decided
from agent.enrol.facts import Facts
from control.model.address import Endpoint, parse_address
from tests.unit.agent.enrol.conftest import POD


def listed(
    inode: int,
    local: str,
    port: int,
    remote: str,
    *,
    state: int = ESTABLISHED,
    remote_port: int = 80,
) -> ListedSocket:
    ends = Endpoint(parse_address(local), port), Endpoint(parse_address(remote), remote_port)
    return ListedSocket(state, *ends, inode, 2, b"")


def test_what_was_accepted_is_told_from_what_was_dialled() -> None:
    found = [
        listed(1, "10.0.0.1", 40000, "10.96.0.9"),
        listed(2, "10.0.0.1", 8080, "10.0.0.7"),
        listed(3, "127.0.0.1", 40001, "127.0.0.1"),
        listed(4, "10.0.0.1", 40002, "10.0.0.1"),
        listed(5, "10.0.0.1", 40003, "10.96.0.9", state=4),
        listed(6, "127.101.7.9", 1024, "10.0.0.1"),
        listed(7, "10.0.0.1", 40004, "10.0.0.8", remote_port=15008),
        listed(8, "10.0.0.1", 15008, "10.0.0.8", remote_port=40005),
    ]
    assert decided(found, frozenset({8080})) == Connections(frozenset({1, 2}), frozenset({1}))


def test_only_who_ran_before_waits_and_only_for_a_host_that_remembers(facts: Facts) -> None:
    earlier = Earlier(facts)
    assert earlier.held_until_s("uid", 120.0) == 120.0
    assert earlier.held_until_s("uid", 0.0) == 0.0
    facts.book.registered("uid", 1, (), True)
    assert earlier.held_until_s("uid", 120.0) == 120.0
    facts.book.starts("uid", 1)
    assert earlier.held_until_s("uid", 120.0) == 0.0


def test_connections_from_before_our_time_are_not_counted(facts: Facts) -> None:
    earlier = Earlier(facts)
    assert earlier.left("uid") is None
    assert not earlier.has_dialled("uid")


def test_those_of_a_pod_that_had_none_are_none(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Earlier(facts)
    monkeypatch.setattr("agent.datapath.sockets.established", lambda netns_fd: 0)
    earlier.captured("uid", -1)
    assert earlier.left("uid") == 0
    earlier.forget("uid")
    assert earlier.left("uid") is None


def test_those_in_a_namespace_that_is_gone_are_unknown_and_kept(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts.known.put(POD)
    earlier = Earlier(facts)
    found = [listed(1, "10.0.0.1", 40000, "10.96.0.9")]
    monkeypatch.setattr("agent.datapath.sockets.established", lambda netns_fd: 1)
    monkeypatch.setattr("agent.datapath.sockets.connections", lambda netns_fd: found)
    monkeypatch.setattr("agent.datapath.sockets.listening_ports", lambda netns_fd: frozenset())
    earlier.captured("uid", -1)
    assert earlier.left("uid") is None
    assert earlier.has_dialled("uid")
