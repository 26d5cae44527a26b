"""The tenants that are remembered are bounded, and nobody who holds anything is forgotten."""

from __future__ import annotations

from control.model.address import Address
from control.model.identity import SpiffeId
from ztunnel.tenants.book import TENANTS_MAX, Tenants
from ztunnel.tenants.tenancy import Kind


def peer(number: int) -> SpiffeId:
    return SpiffeId("cluster.local", "demo", f"n{number}")


def address(number: int) -> Address:
    return Address(number.to_bytes(4))


def test_the_same_peer_and_the_same_address_are_the_same_tenant() -> None:
    tenants = Tenants(20_000)
    assert tenants.peer(peer(1)) is tenants.peer(peer(1))
    assert tenants.peer(peer(1)).kind is Kind.PEER
    assert tenants.source(address(1)) is tenants.source(address(1))
    assert tenants.source(address(1)) is not tenants.source(address(2))
    assert tenants.peer(peer(1)).name == str(peer(1))


def test_the_quiet_are_forgotten_and_the_busy_are_not() -> None:
    tenants = Tenants(20_000)
    busy = tenants.peer(peer(0))
    tenants.tunnels.add(busy, 1)
    for number in range(1, TENANTS_MAX + 100):
        tenants.peer(peer(number))
    assert tenants.peer(peer(0)) is busy
    assert len(list(tenants.strangers())) <= TENANTS_MAX + 2


def test_when_all_are_busy_newcomers_count_as_one() -> None:
    tenants = Tenants(20_000)
    for number in range(TENANTS_MAX):
        tenants.handshakes.portions.add(tenants.source(address(number)), 1)
    crowd = tenants.source(address(TENANTS_MAX))
    assert crowd is tenants.source(address(TENANTS_MAX + 1))
    assert crowd.kind is Kind.SOURCE
    tenants.handshakes.portions.give(tenants.source(address(5)))
    for number in range(TENANTS_MAX // 32):
        tenants.source(address(TENANTS_MAX + 2 + number))
    assert tenants.source(address(TENANTS_MAX + 5000)) is crowd


def test_what_the_forgotten_did_is_still_counted() -> None:
    tenants = Tenants(20_000)
    for number in range(3 * TENANTS_MAX):
        tenant = tenants.source(address(number))
        tenant.cpu_s += 1.0
        tenant.refused += 2
    assert sum(each.cpu_s for each in tenants.strangers()) == 3 * TENANTS_MAX
    assert sum(each.refused for each in tenants.strangers()) == 6 * TENANTS_MAX
