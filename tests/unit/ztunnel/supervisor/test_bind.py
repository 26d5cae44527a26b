"""Listening sockets for a pod: shared ports, and all or none."""

from __future__ import annotations

import os
import select
import socket

import pytest

from ztunnel.supervisor import bind
from ztunnel.supervisor.bind import Listeners, NamespaceUnusable, open_listeners


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def own_network() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_something_that_is_no_namespace_is_refused_and_leaves_nothing() -> None:
    reader, writer = os.pipe()
    before, home = open_descriptors(), own_network()
    with pytest.raises(NamespaceUnusable, match="cannot listen in the pod's network"):
        open_listeners(reader, 2, fixed_ports=False)
    assert open_descriptors() == before
    assert own_network() == home
    os.close(reader)
    os.close(writer)


def test_a_process_that_cannot_go_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    reader, writer = os.pipe()
    bind._return(reader)  # no namespace
    assert ended == [1]
    os.close(reader)
    os.close(writer)


def test_a_group_shares_one_port() -> None:
    group = bind._group(0, 3)
    (port,) = {each.getsockname()[1] for each in group}
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert not any(each.getblocking() for each in group)
    for each in group:
        each.close()


def test_all_listeners_share_the_hbone_port_unless_an_app_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bind.PORT == 15008
    with socket.create_server(("0.0.0.0", 0)) as app:
        port = app.getsockname()[1]
        monkeypatch.setattr(bind, "PORT", port)
        others = bind._on_one_port(6)
        assert len({each.getsockname()[1] for each in others} - {port}) == 1
    mine = bind._on_one_port(6)
    assert {each.getsockname()[1] for each in mine} == {port}
    for each in (*others, *mine):
        each.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_what_comes_by_itself_is_hbones(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """The kernel half chooses for itself; without it a peer's tunnel must not meet another role."""
    with socket.create_server(("0.0.0.0", 0)) as free:
        monkeypatch.setattr(bind, "PORT", free.getsockname()[1])
    with open("/proc/self/ns/net") as own:
        listeners = open_listeners(own.fileno(), workers, fixed_ports=False)
    roles = {
        getattr(each, role): (role, number)
        for number, each in enumerate(listeners)
        for role in ("outbound", "plaintext", "hbone")
    }
    met = set()
    try:
        for number in range(48):
            with socket.create_connection(("127.0.0.1" if number % 2 else "::1", bind.PORT), 5):
                (found,), _, _ = select.select(list(roles), [], [], 5)
                found.accept()[0].close()
                met.add(roles[found])
    finally:
        for each in listeners:
            each.close()
    assert met == {("hbone", number) for number in range(workers)}


def test_a_group_is_whole_or_absent() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # no SO_REUSEPORT: nobody may join
        before = open_descriptors()
        with pytest.raises(OSError, match="in use"):
            bind._group(taken.getsockname()[1], 2)
        assert open_descriptors() == before


def test_listeners_are_handed_over_in_the_agreed_order_and_closed_together() -> None:
    three = [socket.socket() for _ in range(3)]
    listeners = Listeners(*three)
    assert listeners.descriptors() == tuple(each.fileno() for each in three)
    assert (listeners.outbound, listeners.plaintext, listeners.hbone) == tuple(three)
    listeners.close()
    assert all(each.fileno() == -1 for each in three)
