"""Dialling where packet filter rules redirect: without the mark nothing may leave."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from control.model.address import parse_address, parse_endpoint
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.redirected import PACKET_MARK, MarkedDialer
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.transport.dial import DialError


class Recorder(socket.socket):
    """Notes the options that need privileges instead of setting them; `refused` are refused."""

    def __init__(self, family: int = socket.AF_INET, refused: frozenset[int] = frozenset()) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.refused = refused
        self.options: dict[int, Any] = {}
        self.bound: Any = None

    def setsockopt(self, level: int, name: int, value: Any, *rest: Any) -> None:
        if name in self.refused:
            raise OSError(errno.EPERM, "not permitted")
        self.options[name] = value

    def bind(self, address: Any) -> None:
        self.bound = address


@pytest.fixture
def dialer() -> Iterator[MarkedDialer]:
    bugs: list[Served] = []
    reactor = Reactor(bugs.append, FakeTime())
    yield MarkedDialer(reactor)
    reactor.close()
    assert not bugs


def test_every_dial_carries_the_mark(dialer: MarkedDialer) -> None:
    sock = Recorder()
    assert dialer._prepare(sock, refuse)
    assert sock.options[socket.SO_MARK] == PACKET_MARK
    assert sock.options[socket.TCP_NODELAY]


def test_without_the_mark_nothing_is_dialled(dialer: MarkedDialer) -> None:
    sock = Recorder(refused=frozenset({socket.SO_MARK}))
    results: list[socket.socket | DialError] = []
    assert not dialer._prepare(sock, results.append)
    assert results == [DialError.OTHER]
    assert sock.fileno() == -1


def refuse(result: socket.socket | DialError) -> None:
    raise AssertionError(result)


@pytest.mark.parametrize(
    ("app", "client", "bound"),
    [
        ("10.0.0.1", "10.0.0.9:1234", ("10.0.0.9", 0)),
        ("fd00::1", "[fd00::9]:1234", ("fd00::9", 0)),
        ("10.0.0.1", "10.0.0.1:1234", None),
        ("10.0.0.1", "[fd00::9]:1234", None),
    ],
)
def test_the_app_is_dialled_from_its_clients_address(
    dialer: MarkedDialer, app: str, client: str, bound: object
) -> None:
    sock = Recorder(socket.AF_INET6 if ":" in app else socket.AF_INET)
    dialer._show(sock, parse_endpoint(client), parse_address(app))
    assert sock.bound == bound


def test_a_client_that_cannot_be_shown_is_counted(dialer: MarkedDialer) -> None:
    sock = Recorder(refused=frozenset({socket.IP_TRANSPARENT}))
    dialer._show(sock, parse_endpoint("10.0.0.9:1"), parse_address("10.0.0.1"))
    assert (dialer.source_not_shown, sock.bound) == (1, None)
