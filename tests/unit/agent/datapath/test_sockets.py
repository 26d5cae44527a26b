"""sock_diag answers, byte by byte."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath import sockets
from agent.datapath.errors import DatapathError
from agent.datapath.netlink import attribute
from control.model.address import Endpoint, parse_address


def answer(family: int, local: str, remote: str) -> bytes:
    source, target = (socket.inet_pton(family, text).ljust(16, b"\0") for text in (local, remote))
    socket_id = struct.pack("!HH", 4711, 8080) + source + target + struct.pack("=III", 2, 3, 4)
    return struct.pack("=BBBB", family, 1, 0, 0) + socket_id + struct.pack("=IIIII", 0, 0, 0, 0, 99)


@pytest.mark.parametrize(
    ("family", "local", "remote", "shown"),
    [
        (socket.AF_INET, "10.0.0.1", "10.0.0.2", ("10.0.0.1", "10.0.0.2")),
        (socket.AF_INET6, "fd00::1", "fd00::2", ("fd00::1", "fd00::2")),
        (socket.AF_INET6, "::ffff:10.0.0.1", "::ffff:10.0.0.2", ("10.0.0.1", "10.0.0.2")),
    ],
)
def test_an_answer_is_read(family: int, local: str, remote: str, shown: tuple[str, str]) -> None:
    data = answer(family, local, remote)
    found = sockets.parse_answer(data)
    assert found.local == Endpoint(parse_address(shown[0]), 4711)
    assert found.remote == Endpoint(parse_address(shown[1]), 8080)
    assert found.inode == 99
    assert (found.state, found.family) == (1, family)
    assert found.socket_id == data[4:52]  # goes back to the kernel as it came


def test_what_a_connection_moved_is_read_without_its_syn() -> None:
    info = bytes(120) + struct.pack("=QQ", 1001, 300_000) + bytes(100)
    head = answer(socket.AF_INET, "10.0.0.1", "10.0.0.2")
    cookie = 3 | 4 << 32
    found = sockets.parse_transfer(head + attribute(1, b"abc") + attribute(2, info))
    assert found == sockets.Transfer(cookie, 1000, 300_000)
    assert sockets.parse_transfer(head) is None
    assert sockets.parse_transfer(head + attribute(2, info[:130])) is None
    assert sockets.parse_transfer(head + bytes(8)) is None


@given(st.binary(max_size=400))
def test_any_answer_has_moved_something_or_not(data: bytes) -> None:
    sockets.parse_transfer(data)


def test_the_storage_of_a_socket_is_read_from_its_nest() -> None:
    info = bytes(120) + struct.pack("=QQ", 11, 20) + bytes(100)
    storage = attribute(20, attribute(1, attribute(3, b"value") + attribute(2, b"\0" * 4)))
    head = answer(socket.AF_INET, "10.0.0.1", "10.0.0.2")
    found = sockets.parse_transfer(head + attribute(2, info) + storage)
    assert found is not None
    assert (found.sent, found.received, found.storage) == (10, 20, b"value")


def test_connections_are_counted_by_the_namespaces_own_counters() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()), server.accept()[0]:
        text = Path("/proc/thread-self/net/snmp").read_text()
        found = sockets.parse_counters(text)
        assert found.established >= 2
        assert found.made >= 2


@pytest.mark.parametrize(
    "text", ["", "Tcp: CurrEstab\n", "Tcp: RtoMin\nTcp: 1\n", "Tcp: A B\nTcp: 1\n", "Udp: 1\n"]
)
def test_a_kernel_without_that_counter_is_an_error(text: str) -> None:
    with pytest.raises(DatapathError):
        sockets.parse_counters(text)


def test_the_counters_are_found_by_their_names() -> None:
    text = "Ip: A\nIp: 1\nTcp: MaxConn ActiveOpens CurrEstab PassiveOpens\nTcp: -1 20 7 300\n"
    assert sockets.parse_counters(text) == (7, 320)
