"""The routes that make the mesh's block local in a pod."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest

from agent.datapath import block
from agent.datapath.errors import DatapathError
from agent.datapath.netlink import attributes
from control.model.address import parse_address


@pytest.mark.parametrize(
    ("address", "family", "network"),
    [("10.0.0.2", 2, "127.64.0.0/10"), ("fd00::2", 10, "fd74:756c:6c65::/48")],
)
def test_a_route_is_local_to_the_device_and_comes_from_the_pods_address(
    address: str, family: int, network: str
) -> None:
    wanted = ipaddress.ip_network(network)
    body = block._body(parse_address(address), 7)
    assert tuple(body[:2]) == (family, wanted.prefixlen)
    assert tuple(body[4:8]) == (255, 0x54, 254, 2)  # table local, ours, scope host, type local
    assert dict(attributes(body[12:])) == {
        1: wanted.network_address.packed,
        4: struct.pack("=i", 7),
        7: parse_address(address),
    }


def test_an_address_that_no_device_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block.netns, "inside", lambda _: contextlib.nullcontext())
    with pytest.raises(DatapathError, match=r"no device of the pod has 203\.0\.113\.77"):
        block.make_local(-1, (parse_address("203.0.113.77"),))
