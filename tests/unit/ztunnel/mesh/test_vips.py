"""Services by address and hostname: who wins when several claim one, and who is not there."""

from __future__ import annotations

from typing import Any

import pytest

from control.kit.errors import WireError
from control.model.workload import Service, Visibility
from control.wire import workload_pb2 as pb
from control.wire.convert import resource_to_wire
from tests.support.engine.meshes import at, service
from ztunnel.mesh.vips import VipIndex

ADDRESS = "10.1.0.1"


def wire(value: Service) -> pb.Service:
    return resource_to_wire(value).service


def index(*services: Service) -> VipIndex:
    made = VipIndex()
    for each in services:
        made.put(each.key, wire(each))
    return made


def of(namespace: str, *vips: str, name: str = "web", **fields: Any) -> Service:
    return service(name, *(vips or (ADDRESS,)), namespace=namespace, **fields)


def where(found: VipIndex, client: str = "shop", address: str = ADDRESS) -> str | None:
    return found.at("", at(address), client)


def test_an_address_and_a_hostname_lead_to_the_service() -> None:
    web = of("shop", ADDRESS, "fd00:1::1")
    found = index(web)
    assert where(found) == where(found, address="fd00:1::1") == web.key
    assert found.named(web.hostname, "shop") == web.key
    assert found.at("far", at(ADDRESS), "shop") is None, "an address of another network"
    assert where(found, address="10.1.0.2") is None
    assert found.named("absent", "shop") is None


def test_the_clients_own_namespace_wins_then_kubernetes_then_the_first_name() -> None:
    plain, canonical = of("b", canonical=False), of("c")
    assert where(index(plain, canonical), client="shop") == canonical.key
    assert where(index(plain, canonical), client="b") == plain.key
    assert where(index(of("b"), of("a")), client="shop") == of("a").key


@pytest.mark.parametrize("order", [1, -1])
def test_who_wins_does_not_depend_on_who_came_first(order: int) -> None:
    claims = [of("c"), of("b", canonical=False), of("a", canonical=False)][::order]
    assert where(index(*claims)) == of("c").key


def test_a_private_service_is_not_there_for_others() -> None:
    hidden = of("shop", visibility=Visibility.NAMESPACE)
    found = index(hidden)
    assert where(found, client="shop") == hidden.key
    assert where(found, client="other") is None
    assert found.named(hidden.hostname, "other") is None
    assert where(index(hidden, of("b")), client="other") == of("b").key


def test_an_exact_address_beats_every_block_and_a_long_block_a_short_one() -> None:
    wide, narrow = of("a", "10.1.0.0/16", name="wide"), of("a", "10.1.0.0/24", name="narrow")
    exact = of("z", ADDRESS, canonical=False, name="exact")
    assert where(index(wide, narrow, exact)) == exact.key
    assert where(index(wide, narrow)) == narrow.key
    assert where(index(wide, narrow), address="10.1.9.9") == wide.key
    assert where(index(wide, narrow), address="10.2.0.0") is None


def test_a_block_of_the_own_namespace_beats_a_longer_one() -> None:
    own, longer = of("shop", "10.0.0.0/8", name="own"), of("a", "10.1.0.0/24", name="longer")
    assert where(index(own, longer), client="shop") == own.key


def test_a_block_of_one_address_is_that_address() -> None:
    assert where(
        index(of("a", "10.1.0.0/24", name="block"), of("a", "10.1.0.1/32", name="one"))
    ) == (of("a", name="one").key)


def test_a_changed_service_leaves_its_old_addresses() -> None:
    found = index(of("shop", ADDRESS, "10.9.0.0/16"))
    found.put(of("shop").key, wire(of("shop", "10.1.0.2")))
    assert where(found) is None
    assert where(found, address="10.9.1.1") is None
    assert where(found, address="10.1.0.2") == of("shop").key


def test_a_service_that_goes_leaves_the_others() -> None:
    found = index(of("a"), of("b"))
    found.drop(of("a").key)
    found.drop(of("a").key)  # a second time is no error
    assert where(found) == of("b").key
    found.drop(of("b").key)
    assert where(found) is None


@pytest.mark.parametrize(
    "address",
    [
        pb.NetworkAddress(address=b"\x0a\x01"),
        pb.NetworkAddress(address=bytes(4), length=33),
    ],
)
def test_a_message_that_makes_no_sense_leaves_the_old_version(address: pb.NetworkAddress) -> None:
    found = index(of("shop"))
    broken = wire(of("shop", "10.1.0.2"))
    broken.addresses.append(address)
    with pytest.raises(WireError):
        found.put(of("shop").key, broken)
    assert where(found) == of("shop").key
    assert where(found, address="10.1.0.2") is None
