"""sock_diag answers, byte by byte."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath import sockets
from agent.datapath.errors import KernelError


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
    assert (found.local, found.remote) == (ip_address(shown[0]), ip_address(shown[1]))
    assert (found.local_port, found.remote_port, found.inode) == (4711, 8080, 99)
    assert (found.state, found.family) == (1, family)
    assert found.socket_id == data[4:52]  # goes back to the kernel as it came


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


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


def test_messages_of_a_datagram_come_apart_at_their_padding() -> None:
    parts = [(20, b"abc"), (3, b""), (2, b"12345")]
    datagram = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)
        for kind, body in parts
    )
    assert list(sockets.messages(datagram)) == parts


@given(st.binary(max_size=300))
def test_any_datagram_gives_messages_or_a_known_error(data: bytes) -> None:
    try:
        list(sockets.messages(data))
    except KernelError:
        pass
