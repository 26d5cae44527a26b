"""verdict.h against the same rules in Python, by the standard library's view of addresses.

Each rule is tried at every edge, in every combination, and at addresses drawn anew in each run. A
rule is one expression, so a plain loop finds what a search would, at a tenth of its price.
"""

from __future__ import annotations

import ctypes
import enum
import ipaddress
import random
import socket
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import accumulate, product

import pytest

from agent.datapath.pods import CapturedPod, pod_value
from bpf import layout
from control.model.address import canonical, mapped
from tests.unit.bpf.c_build import build

IPAddress = IPv4Address | IPv6Address

SOURCE = """
#include "verdict.h"
int outbound(const struct pod_value *pod, const struct address *dst)
{ return outbound_verdict(pod, dst); }
int inbound(int lo, const struct address *remote, const struct address *local, unsigned port)
{ return inbound_verdict(lo, remote, local, port); }
void target(const struct address *dst, unsigned short port, struct address *to)
{ target_of(dst, port, to); }
void source(const struct address *dst, unsigned first, unsigned second, struct address *from)
{ source_for(dst, first, second, from); }
unsigned slot(unsigned role, const struct address *from, unsigned short port)
{ return listener_slot(role, from, port); }
int foreign(const struct pod_value *pod, const struct address *ip)
{ return is_foreign(pod, ip); }
int family(int level, const struct address *destination)
{ return destination_family(level, destination); }
int fits(int af, const struct address *ip)
{ return peer_fits(af, ip); }
int start(const struct pod_value *pod, const struct address *bound)
{ return may_start_from(pod, bound); }
int go(const struct pod_value *pod, const struct address *dialled, const struct address *ip,
       unsigned short port)
{ return may_go_to(pod, dialled, ip, port); }
int lease(const struct direct_state *state, unsigned long now)
{ return lease_runs(state, now); }
unsigned drawn(const struct service_value *service, unsigned random)
{ return drawn_slot(service, random); }
int vouch(const struct direct_state *state, unsigned long generation, unsigned long opened,
          unsigned long now)
{ return may_vouch(state, generation, opened, now); }
int holds(const struct direct_state *state, const struct vouched *vouched, const struct local *pod,
          unsigned long now)
{ return vouch_holds(state, vouched, pod, now); }
int passing(unsigned long at, unsigned long now)
{ return passthrough_holds(at, now); }
"""


class Outbound(enum.IntEnum):
    DENY_CLOSED = 0
    DENY_NO_ADDRESS = 1
    DENY_LINK_LOCAL = 2
    PASS = 3
    CAPTURE_V4 = 4
    CAPTURE_V6 = 5


class Inbound(enum.IntEnum):
    REFUSE = 0
    PASS = 1
    HBONE = 2
    PLAINTEXT = 3
    OUTBOUND = 4
    OWN = 5


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("verdict")
    return ctypes.CDLL(str(build(folder, "verdict.so", SOURCE, "-shared", "-fPIC")))


def pod_of(addresses: tuple[IPAddress, ...]) -> layout.PodValue:
    return pod_value(CapturedPod("uid", 1, tuple(canonical(each.packed) for each in addresses)))


def raw(address: IPAddress) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(mapped(canonical(address.packed)), 16)


def plain(address: IPAddress) -> IPAddress:
    return getattr(address, "ipv4_mapped", None) or address


# The edges of every rule, from both sides.
_EDGES = [
    "0.0.0.0", "0.0.0.1", "126.255.255.255", "127.0.0.1", "127.255.255.255", "128.0.0.0",
    "223.255.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.0", "169.254.169.254",
    "10.0.0.1", "10.0.0.2", "::", "::1", "::2", "::7f00:1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::fffe:a00:1", "fd00::1", "fd00::2", "fe7f::1", "fe80::1", "febf::1", "fec0::1",
    "feff::", "ff00::", "ff02::1", "2001:db8::1", "64:ff9b::a00:1",
    # The mesh's own block, its two halves and their neighbours.
    "127.63.255.255", "127.64.0.0", "127.95.255.255", "127.96.0.0", "127.127.255.255",
    "127.128.0.0", "fd74:756c:6c64:ffff::1", "fd74:756c:6c65::", "fd74:756c:6c65:1::7",
    "fd74:756c:6c65:2::7", "fd74:756c:6c65:3::7", "fd74:756c:6c66::1", "fd74:756d:6c65:1::7",
    # One word away from unspecified, loopback and mapped.
    "1::", "0:0:1::", "::1:0:0", "1::1", "0:0:1::1", "::1:0:1",
    "1::ffff:a00:1", "0:0:1::ffff:a00:1", "::1:ffff:a00:1",
]  # fmt: skip
DRAWN = 300  # as many of each family


def drawn() -> list[IPAddress]:
    """Addresses that no rule was written for; a failed assertion shows them."""
    v4 = [IPv4Address(random.getrandbits(32)) for _ in range(DRAWN)]
    v6 = [IPv6Address(random.getrandbits(128)) for _ in range(DRAWN)]
    return [*v4, *v6]


EDGES = [ipaddress.ip_address(text) for text in _EDGES]
ADDRESSES = [*EDGES, *drawn()]
PAIRS = [
    *product(EDGES, EDGES),
    *zip(drawn(), drawn(), strict=True),
    *product(EDGES, drawn()[::30]),
]
OWN4 = [None, IPv4Address("10.0.0.1"), IPv4Address("127.0.0.9")]
OWN6 = [None, IPv6Address("fd00::1"), IPv6Address("fe80::1")]


BLOCK = (ip_network("127.64.0.0/10"), ip_network("fd74:756c:6c65::/48"))
TARGETS = (ip_network("127.64.0.0/11"), ip_network("fd74:756c:6c65:1::/64"))
SOURCES = (ip_network("127.96.0.0/11"), ip_network("fd74:756c:6c65:2::/64"))


def among(address: IPAddress, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def is_this_host(address: IPAddress) -> bool:
    return address.is_loopback or address.is_unspecified


def outbound_rule(
    own: tuple[IPAddress, ...], mode: layout.PodMode, destination: IPAddress
) -> Outbound:
    to = plain(destination)
    if is_this_host(to) or among(to, BLOCK) or to.is_multicast or to in own:
        return Outbound.PASS
    if mode is not layout.PodMode.CAPTURE:
        return Outbound.DENY_CLOSED
    if to.version == 6 and to.is_link_local:
        return Outbound.DENY_LINK_LOCAL
    if all(address.version != to.version for address in own):
        return Outbound.DENY_NO_ADDRESS
    return Outbound.CAPTURE_V4 if to.version == 4 else Outbound.CAPTURE_V6


@pytest.mark.parametrize("mode", layout.PodMode)
def test_outbound(c: ctypes.CDLL, mode: layout.PodMode) -> None:
    for own4, own6 in product(OWN4, OWN6):
        own = tuple(address for address in (own4, own6) if address)
        value = pod_of(own) if own else layout.PodValue()
        value.mode = mode
        for destination in ADDRESSES:
            verdict = c.outbound(ctypes.byref(value), raw(destination))
            assert Outbound(verdict) is outbound_rule(own, mode, destination), (own, destination)


def test_an_unknown_mode_is_as_good_as_closed(c: ctypes.CDLL) -> None:
    value = pod_of((IPv4Address("10.0.0.1"), IPv6Address("fd00::1")))
    value.mode = 200
    for destination in ADDRESSES:
        verdict = Outbound(c.outbound(ctypes.byref(value), raw(destination)))
        assert verdict in (Outbound.PASS, Outbound.DENY_CLOSED), destination


def inbound_rule(lo: bool, remote: IPAddress, local: IPAddress, port: int) -> Inbound:
    remote, local = plain(remote), plain(local)
    is_hbone = port == layout.HBONE_PORT
    if among(local, BLOCK):
        return Inbound.OUTBOUND if is_hbone and not among(local, SOURCES) else Inbound.REFUSE
    if is_hbone:
        return Inbound.HBONE
    if lo or is_this_host(remote):
        return Inbound.PASS
    if remote == local or among(remote, SOURCES):  # from outside IPv4's are martians
        return Inbound.PASS if remote.version == 4 else Inbound.OWN
    return Inbound.PLAINTEXT


@pytest.mark.parametrize("port", [0, 80, 15007, 15008, 15009, 65535])
def test_inbound(c: ctypes.CDLL, port: int) -> None:
    for lo, (remote, local) in product((False, True), PAIRS):
        verdict = c.inbound(int(lo), raw(remote), raw(local), port)
        assert Inbound(verdict) is inbound_rule(lo, remote, local, port), (lo, remote, local)


def test_a_destination_has_one_target_of_its_family_and_others_have_others(
    c: ctypes.CDLL,
) -> None:
    def target(to: IPAddress, port: int) -> IPAddress:
        out = ctypes.create_string_buffer(16)
        c.target(raw(to), socket.htons(port), out)
        return plain(IPv6Address(out.raw))

    for to in ADDRESSES:
        assert among(target(to, 80), TARGETS), to
        assert target(to, 80).version == plain(to).version
        assert target(to, 80) == target(to, 80)
    # Neighbouring addresses and ports, the usual case: 3,000 draws out of 2^21 share 2 by chance.
    near = {(IPv4Address(0x0A000000 + n), port) for n in range(500) for port in range(8080, 8086)}
    assert len({target(*each) for each in near}) > len(near) - 30
    far = {(IPv6Address(f"fd00::{n:x}"), port) for n in range(500) for port in range(8080, 8086)}
    assert len({target(*each) for each in far}) == len(far)


def test_a_source_is_one_of_the_block_in_the_apps_family(c: ctypes.CDLL) -> None:
    for to in ADDRESSES:
        seen = set()
        for numbers in ((0, 0), (2**32 - 1, 2**32 - 1), (1 << 31, 1), (1 << 30, 2)):
            out = ctypes.create_string_buffer(16)
            c.source(raw(to), *numbers, out)
            source = plain(IPv6Address(out.raw))
            assert among(source, SOURCES), (to, numbers)
            assert source.version == plain(to).version
            seen.add(source)
        assert len(seen) == 4


@pytest.mark.parametrize("role", layout.ListenerRole)
def test_a_connection_has_one_slot_of_its_role_and_all_slots_have_their_share(
    c: ctypes.CDLL, role: layout.ListenerRole
) -> None:
    for clients in (
        [(IPv4Address("10.0.0.2"), port) for port in range(32768, 61000)],
        [(IPv6Address("fd00::2"), port) for port in range(32768, 61000)],
        [(IPv4Address(0x0A000000 + n), 5000) for n in range(28232)],
    ):
        found = Counter(c.slot(role, raw(ip), socket.htons(port)) for ip, port in clients)
        first = role * layout.ROLE_SLOTS
        assert set(found) == set(range(first, first + layout.ROLE_SLOTS))
        assert max(found.values()) < 2 * len(clients) / layout.ROLE_SLOTS


OWN = (IPv4Address("10.0.0.1"), IPv6Address("fd00::1"))


@pytest.mark.parametrize("own4", [OWN[0], IPv4Address("10.0.0.7"), IPv4Address("127.0.0.9")])
def test_a_foreign_address_is_neither_this_hosts_nor_the_pods(
    c: ctypes.CDLL, own4: IPv4Address
) -> None:
    own = (own4, OWN[1])
    value = pod_of(own)
    for bound in ADDRESSES:
        ours = is_this_host(plain(bound)) or plain(bound).is_multicast or plain(bound) in own
        ours = ours or among(plain(bound), BLOCK)
        assert bool(c.foreign(ctypes.byref(value), raw(bound))) is not ours, bound


@pytest.mark.parametrize("level", [0, 1, 6, 41])
def test_a_destination_is_told_in_its_own_family_only(c: ctypes.CDLL, level: int) -> None:
    for destination in ADDRESSES:
        wanted = {(0, 4): 2, (41, 6): 10}.get((level, plain(destination).version), 0)
        assert c.family(level, raw(destination)) == wanted, destination


@pytest.mark.parametrize("family", [0, 1, 2, 10])
def test_a_socket_shows_only_peers_it_has_room_for(c: ctypes.CDLL, family: int) -> None:
    for shown in ADDRESSES:
        room = family == 10 or (family == 2 and plain(shown).version == 4)
        assert bool(c.fits(family, raw(shown))) is room, shown


# The direct path


@pytest.mark.parametrize("own4", [OWN[0], IPv4Address("10.0.0.7"), IPv4Address("127.0.0.9")])
def test_a_direct_connection_starts_unbound_or_at_the_pods_own_address(
    c: ctypes.CDLL, own4: IPv4Address
) -> None:
    own = (own4, OWN[1])
    value = pod_of(own)
    for bound in ADDRESSES:
        allowed = plain(bound).is_unspecified or plain(bound) in own
        assert bool(c.start(ctypes.byref(value), raw(bound))) is allowed, bound


@pytest.mark.parametrize("port", [80, 15007, 15008, 15009])
def test_a_direct_connection_keeps_its_family_and_meets_no_tunnel_and_not_the_pod_itself(
    c: ctypes.CDLL, port: int
) -> None:
    value = pod_of(OWN)
    for dialled, to in PAIRS:
        same_family = plain(dialled).version == plain(to).version
        allowed = same_family and port != 15008 and plain(to) not in OWN
        found = c.go(ctypes.byref(value), raw(dialled), raw(to), socket.htons(port))
        assert bool(found) is allowed, (dialled, to)


@pytest.mark.parametrize(
    ("generation", "until", "runs"), [(0, 2**63, 0), (1, 0, 0), (1, 100, 0), (1, 101, 1)]
)
def test_a_lease_runs_until_its_end_and_never_without_a_generation(
    c: ctypes.CDLL, generation: int, until: int, runs: int
) -> None:
    state = layout.DirectState(generation, until)
    assert c.lease(ctypes.byref(state), ctypes.c_ulong(100)) == runs


def weights_drawn() -> list[int]:
    weights = [random.randint(0, 1000) for _ in range(random.randint(0, layout.SLOTS_MAX))]
    return [random.choice((0, 1, weight)) for weight in weights]


@pytest.mark.parametrize("elsewhere", [0, 1, 999])
def test_a_draw_means_the_slot_whose_chances_it_falls_on(c: ctypes.CDLL, elsewhere: int) -> None:
    for weights in ([], [0], [1], [0, 0], [0, 1, 0], *(weights_drawn() for _ in range(20))):
        total = sum(weights) + elsewhere
        service = layout.ServiceValue(total=total, count=len(weights))
        for index, reached in enumerate(accumulate(weights)):
            service.slots[index].cumulative = reached
        chances = [index for index, weight in enumerate(weights) for _ in range(weight)]
        edges = (each + off for each in accumulate(weights, initial=0) for off in (-1, 0, 1))
        for number in {*(each for each in edges if each >= 0), 2**32 - 1, random.getrandbits(32)}:
            point = number % total if total else 0
            wanted = chances[point] if point < len(chances) else layout.SLOTS_MAX
            assert c.drawn(ctypes.byref(service), number) == wanted, (weights, number)


GRACE = layout.VOUCH_GRACE_NS


@pytest.mark.parametrize(
    ("state", "generation", "age", "allowed"),
    [
        ((5, 0), 4, GRACE - 1, 1),  # allowed an instant ago
        ((5, 0), 5, GRACE, 0),  # current, but the lease is over
        ((5, 2**62), 5, GRACE, 1),
        ((5, 2**62), 4, GRACE, 0),
        ((0, 2**62), 0, GRACE, 0),
    ],
)
def test_a_late_syn_needs_what_its_connect_needed(
    c: ctypes.CDLL, state: tuple[int, int], generation: int, age: int, allowed: int
) -> None:
    now = 10**12
    times = (ctypes.c_ulong(generation), ctypes.c_ulong(now - age), ctypes.c_ulong(now))
    assert c.vouch(ctypes.byref(layout.DirectState(*state)), *times) == allowed


@pytest.mark.parametrize(
    ("lease_s", "generation", "age", "pod", "holds"),
    [
        (1, 5, 10 * GRACE, (3, 1), 1),
        (0, 5, 10 * GRACE, (3, 1), 0),  # sent again when nobody keeps generations up to date
        (0, 5, GRACE - 1, (3, 1), 1),
        (1, 4, GRACE - 1, (3, 1), 1),
        (1, 4, GRACE, (3, 1), 0),
        (1, 5, GRACE - 1, (3, 0), 1),  # the pod has just left the direct path
        (1, 5, GRACE, (3, 0), 0),
        (1, 5, 0, (4, 1), 0),  # the address is another pod's by now
        (1, 5, 0, (0, 1), 0),  # or that of a pod without an id
    ],
)
def test_a_vouched_syn_is_for_one_pod_and_not_for_ever(
    c: ctypes.CDLL, lease_s: int, generation: int, age: int, pod: tuple[int, int], holds: int
) -> None:
    now = 10**12
    vouched = layout.Vouched(generation=generation, at_ns=now - age, destination=3)
    state = layout.DirectState(5, now + lease_s * 10**9)
    local = layout.Local(workload=pod[0], direct=pod[1])
    found = c.holds(*map(ctypes.byref, (state, vouched, local)), ctypes.c_ulong(now))
    assert found == holds


def test_a_ztunnels_syn_speaks_for_its_port_while_it_may_be_on_its_way(c: ctypes.CDLL) -> None:
    now, patience = 10**12, layout.PASSTHROUGH_NS
    ages = {0: 1, patience - 1: 1, patience: 0}
    found = {age: c.passing(ctypes.c_ulong(now - age), ctypes.c_ulong(now)) for age in ages}
    assert found == ages
