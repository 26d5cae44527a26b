"""Attributes of rtnetlink, as bytes."""

from __future__ import annotations

import struct

from agent.datapath import veth


def attribute(kind: int, payload: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data.ljust(len(data) + 3 & ~3, b"\0")


def test_attributes_are_found_behind_padding_and_without_their_flags() -> None:
    data = attribute(1, b"veth\0") + attribute(5 | 1 << 15, b"\x07\0\0\0") + attribute(9, b"")
    assert veth.attributes(data) == {1: b"veth\0", 5: b"\x07\0\0\0", 9: b""}


def test_a_broken_attribute_ends_the_list() -> None:
    assert veth.attributes(attribute(1, b"x") + b"\0\0\0\0" + attribute(2, b"y")) == {1: b"x"}
    assert veth.attributes(b"\x08") == {}
