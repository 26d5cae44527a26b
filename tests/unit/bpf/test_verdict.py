"""verdict.h against the same rules in Python, by the standard library's view of addresses."""

from __future__ import annotations

import ctypes
import enum
import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.datapath.pods import CapturedPod, mapped, pod_value
from bpf import layout
from tests.unit.bpf.c_build import build

IPAddress = IPv4Address | IPv6Address

SOURCE = """
#include "verdict.h"
int outbound(const struct pod_value *pod, const struct address *dst)
{ return outbound_verdict(pod, dst); }
int inbound(int lo, const struct address *remote, const struct address *local, unsigned port)
{ return inbound_verdict(lo, remote, local, port); }
int foreign(const struct pod_value *pod, const struct address *ip)
{ return is_foreign(pod, ip); }
int family(int level, const struct address *destination)
{ return destination_family(level, destination); }
int fits(int af, const struct address *ip)
{ return peer_fits(af, ip); }
"""


class Outbound(enum.IntEnum):
    DENY_CLOSED = 0
    DENY_NO_ADDRESS = 1
    DENY_LINK_LOCAL = 2
    PASS = 3
    CAPTURE_V4 = 4
    CAPTURE_V6 = 5


class Inbound(enum.IntEnum):
    PASS = 0
    HBONE = 1
    PLAINTEXT = 2


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("verdict")
    return ctypes.CDLL(str(build(folder, "verdict.so", SOURCE, "-shared", "-fPIC")))


def pod_of(addresses: tuple[IPAddress, ...]) -> layout.PodValue:
    return pod_value(CapturedPod("uid", 1, addresses, 15001))


def raw(address: IPAddress) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(mapped(address), 16)


def plain(address: IPAddress) -> IPAddress:
    return getattr(address, "ipv4_mapped", None) or address


# Every edge of every rule, beside anything at all.
EDGES = [
    "0.0.0.0", "0.0.0.1", "126.255.255.255", "127.0.0.1", "127.255.255.255", "128.0.0.0",
    "223.255.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.0", "169.254.169.254",
    "10.0.0.1", "10.0.0.2", "::", "::1", "::2", "::7f00:1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::fffe:a00:1", "fd00::1", "fd00::2", "fe7f::1", "fe80::1", "febf::1", "fec0::1",
    "feff::", "ff00::", "ff02::1", "2001:db8::1", "64:ff9b::a00:1",
]  # fmt: skip
ADDRESSES = st.one_of(
    st.sampled_from(EDGES).map(ipaddress.ip_address),
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
)
OWN4 = st.sampled_from([None, IPv4Address("10.0.0.1"), IPv4Address("127.0.0.9")])
OWN6 = st.sampled_from([None, IPv6Address("fd00::1"), IPv6Address("fe80::1")])


def is_this_host(address: IPAddress) -> bool:
    return address.is_loopback or address.is_unspecified


def outbound_rule(
    own: tuple[IPAddress, ...], mode: layout.PodMode, destination: IPAddress
) -> Outbound:
    to = plain(destination)
    if is_this_host(to) or to.is_multicast or to in own:
        return Outbound.PASS
    if mode is not layout.PodMode.CAPTURE:
        return Outbound.DENY_CLOSED
    if to.version == 6 and to.is_link_local:
        return Outbound.DENY_LINK_LOCAL
    if all(address.version != to.version for address in own):
        return Outbound.DENY_NO_ADDRESS
    return Outbound.CAPTURE_V4 if to.version == 4 else Outbound.CAPTURE_V6


@settings(max_examples=300, deadline=None)
@given(OWN4, OWN6, st.sampled_from(layout.PodMode), ADDRESSES)
def test_outbound(
    c: ctypes.CDLL,
    own4: IPv4Address | None,
    own6: IPv6Address | None,
    mode: layout.PodMode,
    destination: IPAddress,
) -> None:
    own = tuple(address for address in (own4, own6) if address)
    value = pod_of(own) if own else layout.PodValue()
    value.mode = mode
    verdict = c.outbound(ctypes.byref(value), raw(destination))
    assert Outbound(verdict) is outbound_rule(own, mode, destination)


@settings(max_examples=200, deadline=None)
@given(ADDRESSES)
def test_an_unknown_mode_is_as_good_as_closed(c: ctypes.CDLL, destination: IPAddress) -> None:
    value = pod_of((IPv4Address("10.0.0.1"), IPv6Address("fd00::1")))
    value.mode = 200
    verdict = Outbound(c.outbound(ctypes.byref(value), raw(destination)))
    assert verdict in (Outbound.PASS, Outbound.DENY_CLOSED)


def inbound_rule(lo: bool, remote: IPAddress, local: IPAddress, port: int) -> Inbound:
    remote, local = plain(remote), plain(local)
    if lo or remote == local or is_this_host(remote):
        return Inbound.PASS
    return Inbound.HBONE if port == layout.HBONE_PORT else Inbound.PLAINTEXT


@settings(max_examples=300, deadline=None)
@given(st.booleans(), ADDRESSES, ADDRESSES, st.sampled_from([0, 80, 15007, 15008, 15009, 65535]))
def test_inbound(c: ctypes.CDLL, lo: bool, remote: IPAddress, local: IPAddress, port: int) -> None:
    verdict = c.inbound(int(lo), raw(remote), raw(local), port)
    assert Inbound(verdict) is inbound_rule(lo, remote, local, port)


@settings(max_examples=100, deadline=None)
@given(OWN4, ADDRESSES)
def test_a_foreign_address_is_neither_this_hosts_nor_the_pods(
    c: ctypes.CDLL, own4: IPv4Address | None, bound: IPAddress
) -> None:
    own = (own4 or IPv4Address("10.0.0.7"), IPv6Address("fd00::1"))
    value = pod_of(own)
    ours = is_this_host(plain(bound)) or plain(bound).is_multicast or plain(bound) in own
    assert bool(c.foreign(ctypes.byref(value), raw(bound))) is not ours


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([0, 1, 6, 41]), ADDRESSES)
def test_a_destination_is_told_in_its_own_family_only(
    c: ctypes.CDLL, level: int, destination: IPAddress
) -> None:
    wanted = {(0, 4): 2, (41, 6): 10}.get((level, plain(destination).version), 0)
    assert c.family(level, raw(destination)) == wanted


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0, 1, 2, 10]), ADDRESSES)
def test_a_socket_shows_only_peers_it_has_room_for(
    c: ctypes.CDLL, family: int, shown: IPAddress
) -> None:
    room = family == 10 or (family == 2 and plain(shown).version == 4)
    assert bool(c.fits(family, raw(shown))) is room
