"""The search for the host's end of a veth, where there is none."""

from __future__ import annotations

from agent.datapath import veth
from agent.datapath.netlink import ROUTE, Netlink
from control.model.address import parse_address


def test_a_device_is_found_by_its_address() -> None:
    with Netlink(ROUTE) as route:
        found = veth.device_of(route, parse_address("127.0.0.1"))
        assert found is not None
        assert veth._link(route, found)[3] == b"lo\0"  # IFLA_IFNAME
        assert veth.device_of(route, parse_address("203.0.113.77")) is None
        assert veth._link(route, 2**31 - 1) == {}


def test_a_number_of_the_wrong_size_is_none() -> None:
    assert veth._number({1: b"\x07\0\0\0"}, 1) == 7
    assert veth._number({1: b"\x07"}, 1) is None
    assert veth._number({}, 1) is None
