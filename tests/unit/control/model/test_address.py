"""Addresses, endpoints and blocks: one canonical form, v4-mapped included."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import (
    Endpoint,
    canonical,
    format_address,
    host_text,
    is_loopback,
    mapped,
    parse_address,
    parse_block,
    parse_endpoint,
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("FD00::0:1", "fd00::1")],
)
def test_one_form(text: str, printed: str) -> None:
    assert format_address(parse_address(text)) == printed


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "fe80::1%eth0", "010.0.0.1", "x"])
def test_not_an_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def groups(most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(["0", "1", "ffff", "0A", "12345", "g", ""]), max_size=most).map(
        ":".join
    )


TEXTS = (
    st.tuples(groups(9), st.sampled_from(["", "::"]), groups(9)).map("".join)
    | st.lists(st.sampled_from(["0", "10", "255", "256", "01", ""]), max_size=5).map(".".join)
    | st.text("0f:.%", max_size=12)
)


@settings(max_examples=300)
@given(TEXTS)
def test_an_address_is_what_the_library_takes_for_one(text: str) -> None:
    try:
        wanted = None if "%" in text else canonical(ipaddress.ip_address(text).packed)
    except ValueError:
        wanted = None
    if wanted is None:
        with pytest.raises(ValueError):
            parse_address(text)
    else:
        assert parse_address(text) == wanted


@given(st.binary(max_size=20))
def test_bytes_are_canonical_once_and_for_all(data: bytes) -> None:
    try:
        address = canonical(data)
    except ValueError:
        assert len(data) not in (4, 16)
        return
    assert canonical(address) == address
    assert canonical(mapped(address)) == address
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize("text", ["10.0.0.1:80", "[fd00::1]:65535"])
def test_endpoints_read_as_they_print(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "fd00::1:80", "[10.0.0.1]:80", ":80", "a:٣"],
)
def test_not_an_endpoint(text: str) -> None:
    with pytest.raises(ValueError):
        parse_endpoint(text)


def test_a_host_before_a_port_has_brackets_if_it_needs_them() -> None:
    assert host_text(parse_address("10.0.0.1")) == "10.0.0.1"
    assert host_text(parse_address("fd00::1")) == "[fd00::1]"


def test_loopback() -> None:
    assert is_loopback(parse_address("127.3.2.1"))
    assert is_loopback(parse_address("::1"))
    assert not is_loopback(parse_address("::2"))


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "fd00::1"),
        ("0.0.0.0/0", "1.2.3.4", "::1"),
        ("::/0", "fd00::1", "10.0.0.1"),
    ],
)
def test_blocks(block: str, inside: str, outside: str) -> None:
    assert parse_address(inside) in parse_block(block)
    assert parse_address(outside) not in parse_block(block)


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "::ffff:1.2.3.4/95"),
        *("10.0.0.0/08", "fd00::/064", "10.0.0.0/8/8", "10.0.0.0/\u0668", "010.0.0.0/8"),
        *("fe80::1%eth0", "fe80::%1/64", "fe80::/64%eth0"),
    ],
)
def test_not_a_block(text: str) -> None:
    with pytest.raises(ValueError):
        parse_block(text)


def test_an_endpoint_is_a_value() -> None:
    assert (
        len({Endpoint(parse_address("::ffff:1.2.3.4"), 1), Endpoint(parse_address("1.2.3.4"), 1)})
        == 1
    )
