"""Addresses from the kernel, as values."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import Endpoint, parse_address, parse_endpoint
from ztunnel.connections.sockaddr import endpoint_of, parse_original, parse_sockaddr
from ztunnel.mesh.balance import Hint

IPV4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 8080) + bytes([10, 0, 0, 7]) + bytes(8)


def ipv6(text: str, port: int = 8080) -> bytes:
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, text) + bytes(4)


def test_both_families_are_understood() -> None:
    assert parse_sockaddr(IPV4) == parse_endpoint("10.0.0.7:8080")
    assert parse_sockaddr(ipv6("fd00::7")) == parse_endpoint("[fd00::7]:8080")


def test_a_mapped_destination_is_ipv4() -> None:
    assert parse_sockaddr(ipv6("::ffff:10.0.0.7")) == parse_endpoint("10.0.0.7:8080")


@pytest.mark.parametrize(
    "raw", [b"", IPV4[:7], b"\xff\xff" + IPV4[2:], ipv6("::1", port=0), ipv6("::1")[:20]]
)
def test_anything_else_is_no_destination(raw: bytes) -> None:
    assert parse_sockaddr(raw) is None


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_none(raw: bytes) -> None:
    found = parse_sockaddr(raw)
    assert found is None or 0 < found.port < 65536
    original = parse_original(raw)
    assert (original and original[0]) == found


@pytest.mark.parametrize(
    ("said", "hint"), [(0, Hint.NONE), (1, Hint.LOCAL), (2, Hint.ELSEWHERE), (3, Hint.NONE)]
)
def test_the_kernels_draw_is_in_a_byte_that_says_nothing_else(said: int, hint: Hint) -> None:
    v4 = IPV4[:8] + bytes([said]) + IPV4[9:]
    v6 = ipv6("fd00::7")
    v6 = v6[:7] + bytes([said]) + v6[8:]
    assert parse_original(v4) == (parse_endpoint("10.0.0.7:8080"), hint)
    assert parse_original(v6) == (parse_endpoint("[fd00::7]:8080"), hint)


def test_bytes_elsewhere_are_no_hint() -> None:
    assert parse_original(IPV4[:9] + b"\x01" * 7) == (parse_endpoint("10.0.0.7:8080"), Hint.NONE)
    v6 = ipv6("fd00::7")
    assert parse_original(v6[:4] + b"\x01\x01\x01\x00" + v6[8:24] + b"\x01\x01\x01\x01") == (
        parse_endpoint("[fd00::7]:8080"),
        Hint.NONE,
    )
    assert parse_original(IPV4[:8]) == (parse_endpoint("10.0.0.7:8080"), Hint.NONE)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("10.0.0.7", 1), "10.0.0.7"),
        (("::ffff:10.0.0.7", 1, 0, 0), "10.0.0.7"),
        (("fd00::7", 1, 0, 0), "fd00::7"),
        (("fe80::7%eth0", 1, 0, 2), "fe80::7"),
    ],
)
def test_socket_names(name: tuple[str | int, ...], address: str) -> None:
    assert endpoint_of(name) == Endpoint(parse_address(address), 1)
