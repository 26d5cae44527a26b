"""Dialling where packet filter rules redirect: without the mark nothing may leave."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from control.model.address import Endpoint, parse_endpoint
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.redirected import PACKET_MARK, MarkedDialer
from ztunnel.loop.reactor import Reactor, Served
from ztunnel.transport.dial import DialError


class Recorder(socket.socket):
    """Notes the options that need privileges instead of setting them; `refused` are refused."""

    def __init__(self, family: int, refused: frozenset[int] = frozenset()) -> None:
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

    def connect_ex(self, address: Any) -> int:
        return errno.ECONNREFUSED


@pytest.fixture
def dialer() -> Iterator[MarkedDialer]:
    bugs: list[Served] = []
    reactor = Reactor(bugs.append, FakeTime())
    yield MarkedDialer(reactor)
    reactor.close()
    assert not bugs


def dial(
    dialer: MarkedDialer, sock: Recorder, target: str, show: Endpoint | None = None
) -> list[socket.socket | DialError]:
    results: list[socket.socket | DialError] = []
    dialer._connect(sock, parse_endpoint(target), results.append, show)
    return results


def test_every_dial_carries_the_mark(dialer: MarkedDialer) -> None:
    sock = Recorder(socket.AF_INET)
    assert dial(dialer, sock, "10.0.0.1:80") == [DialError.REFUSED]
    assert sock.options[socket.SO_MARK] == PACKET_MARK
    assert sock.bound is None


def test_without_the_mark_nothing_is_dialled(dialer: MarkedDialer) -> None:
    sock = Recorder(socket.AF_INET, frozenset({socket.SO_MARK}))
    assert dial(dialer, sock, "10.0.0.1:80") == [DialError.OTHER]
    assert sock.fileno() == -1


@pytest.mark.parametrize(
    ("target", "client", "bound"),
    [
        ("10.0.0.1:80", "10.0.0.9:1234", ("10.0.0.9", 0)),
        ("[fd00::1]:80", "[fd00::9]:1234", ("fd00::9", 0)),
        ("10.0.0.1:80", "10.0.0.1:1234", None),
        ("10.0.0.1:80", "[fd00::9]:1234", None),
    ],
)
def test_the_app_is_dialled_from_its_clients_address(
    dialer: MarkedDialer, target: str, client: str, bound: object
) -> None:
    sock = Recorder(socket.AF_INET6 if "[" in target else socket.AF_INET)
    dial(dialer, sock, target, parse_endpoint(client))
    assert sock.bound == bound


def test_a_client_that_cannot_be_shown_is_counted(dialer: MarkedDialer) -> None:
    sock = Recorder(socket.AF_INET, frozenset({socket.IP_TRANSPARENT}))
    assert dial(dialer, sock, "10.0.0.1:80", parse_endpoint("10.0.0.9:1")) == [DialError.REFUSED]
    assert (dialer.source_not_shown, sock.bound) == (1, None)
