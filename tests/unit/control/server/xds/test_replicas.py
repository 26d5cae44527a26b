"""The control plane's replicas, by their pods."""

from __future__ import annotations

from control.model.address import parse_address
from control.server.sources.objects import Key, Meta, PodObject
from control.server.xds.replicas import ADDRESSES_MAX, replica_addresses


def pod(name: str, *addresses: str, ready: bool = True) -> PodObject:
    meta = Meta(Key("Pod", "tulle-system", name), "", 0, {}, {})
    placed = tuple(map(parse_address, addresses))
    return PodObject(meta, "tulle-control", "n1", False, None, (), "Running", placed, ready)


def test_one_address_of_each_before_a_second_of_any() -> None:
    pods = [pod("b", "10.1.0.2", "fd00::2", ready=False), pod("a", "10.1.0.1", "fd00::1"), pod("c")]
    found = ["10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"]
    assert replica_addresses(pods) == tuple(map(parse_address, found))
    assert replica_addresses([]) == ()


def test_there_are_never_too_many() -> None:
    pods = [pod(f"p{number}", f"10.1.0.{number}") for number in range(ADDRESSES_MAX + 1)]
    assert len(replica_addresses(pods)) == ADDRESSES_MAX
