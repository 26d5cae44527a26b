from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.hbone.authority import Authority, format_authority, parse_authority


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("10.0.0.1:80", Authority(IPv4Address("10.0.0.1"), 80)),
        ("[2001:db8::1]:15008", Authority(IPv6Address("2001:db8::1"), 15008)),
        ("[::ffff:10.0.0.1]:80", Authority(IPv4Address("10.0.0.1"), 80)),
        ("Web.Shop.svc.cluster.local:80", Authority("web.shop.svc.cluster.local", 80)),
        ("web.:80", Authority("web", 80)),
        ("a_b-c.d:65535", Authority("a_b-c.d", 65535)),
    ],
)
def test_targets_are_read(text: str, authority: Authority) -> None:
    assert parse_authority(text) == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.1:+80",
        "10.0.0.1:\uff180",
        "10.0.0.1:80\n",
        " 10.0.0.1:80",
        "10.0.0.256:80",
        "10.0.1:80",
        "010.0.0.1:80",
        "1.2.3.4.:80",
        "2001:db8::1:80",
        "[2001:db8::1]",
        "[10.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "user@web:80",
        "web..shop:80",
        "-web:80",
        "http://web:80",
        "a" * 64 + ":80",
        "a." * 130 + "a:80",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    assert parse_authority(text) is None


@settings(max_examples=40, deadline=None)
@given(st.ip_addresses(), st.integers(1, 65535))
def test_formatted_addresses_are_read_back(address: IPv4Address | IPv6Address, port: int) -> None:
    authority = parse_authority(format_authority(address, port))
    assert authority is not None
    assert str(authority) == format_authority(address, port)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gives_an_authority_or_none(text: str) -> None:
    authority = parse_authority(text)
    if authority is not None:
        assert parse_authority(str(authority)) == authority
