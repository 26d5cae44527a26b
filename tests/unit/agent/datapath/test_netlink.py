"""Netlink: bytes that come apart, and a conversation with this very kernel."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath.errors import DatapathError
from agent.datapath.netlink import (
    DUMP,
    REQUEST,
    ROUTE,
    Netlink,
    attribute,
    attributes,
    messages,
)

GET_LINK = 18
LINK = struct.Struct("=BBHiII")


def test_messages_of_a_datagram_come_apart_at_their_padding() -> None:
    parts = [(20, b"abc"), (3, b""), (2, b"12345")]
    datagram = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)
        for kind, body in parts
    )
    assert list(messages(datagram)) == parts


@given(st.binary(max_size=300))
def test_any_datagram_gives_messages_or_a_known_error(data: bytes) -> None:
    try:
        list(messages(data))
    except DatapathError:
        pass


def test_attributes_are_found_behind_padding_and_without_their_flags() -> None:
    data = attribute(1, b"veth\0") + attribute(5 | 1 << 15, b"\x07\0\0\0") + attribute(9, b"")
    assert list(attributes(data)) == [(1, b"veth\0"), (5, b"\x07\0\0\0"), (9, b"")]


def test_a_broken_attribute_ends_the_list() -> None:
    broken = attribute(1, b"x") + b"\0\0\0\0" + attribute(2, b"y")
    assert list(attributes(broken)) == [(1, b"x")]
    assert list(attributes(b"\x08")) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_some_attributes(data: bytes) -> None:
    list(attributes(data))


def link_body(index: int) -> bytes:
    return LINK.pack(socket.AF_UNSPEC, 0, 0, index, 0, 0)


def test_a_dump_is_taken_whole_and_one_socket_asks_again() -> None:
    with Netlink(ROUTE) as route:
        for _ in range(2):
            answer = list(route.ask(GET_LINK, REQUEST | DUMP, link_body(0), "list links"))
            found = [LINK.unpack_from(each)[3] for payloads in answer for each in payloads]
            assert socket.if_nametoindex("lo") in found
        (payloads,) = route.ask(GET_LINK, REQUEST, link_body(1), "look at a link")
        assert len(payloads) == 1


def test_a_refusal_says_what_was_asked() -> None:
    with (
        Netlink(ROUTE) as route,
        pytest.raises(DatapathError, match="look at a link: ENODEV") as refused,
    ):
        list(route.ask(GET_LINK, REQUEST, link_body(2**31 - 1), "look at a link"))
    assert refused.value.number == errno.ENODEV
