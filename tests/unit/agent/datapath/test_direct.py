"""Bytes of the direct path's tables and events."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from agent.datapath import direct
from agent.datapath.direct import ServiceSlot
from bpf import layout

WEB = IPv4Address("10.0.0.3")


def slot(weight: int) -> ServiceSlot:
    return ServiceSlot(weight, 7, WEB, 8080)


def test_a_service_is_written_with_running_sums() -> None:
    value = direct.service_value(10, [slot(1), slot(0), slot(4)])
    assert (value.total, value.count) == (10, 3)
    assert [each.cumulative for each in value.slots[:3]] == [1, 1, 5]
    assert value.slots[2].workload == 7
    assert bytes(value.slots[2].ip) == bytes(10) + b"\xff\xff" + WEB.packed
    assert socket.ntohs(value.slots[2].port) == 8080


def test_endpoints_beyond_the_slots_count_as_elsewhere() -> None:
    value = direct.service_value(40, [slot(2)] * 20)
    assert (value.count, value.slots[layout.SLOTS_MAX - 1].cumulative) == (16, 32)


@pytest.mark.parametrize(("total", "weights"), [(0, []), (3, [2, 2]), (2**32, [1]), (-1, [])])
def test_chances_that_do_not_add_up_are_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="chances"):
        direct.service_value(total, [slot(weight) for weight in weights])


def test_an_event_is_read_with_plain_addresses_and_host_order_ports() -> None:
    raw = layout.FlowEvent(
        id=5,
        generation=9,
        kind=layout.FlowKind.CLOSED,
        client=direct.address_value(IPv4Address("10.0.0.2")),
        client_port=socket.htons(40000),
        target=direct.address_value(WEB),
        target_port=socket.htons(8080),
        original=direct.address_value(IPv6Address("fd96::9")),
        original_port=socket.htons(80),
        sent=3,
        received=4,
        aborted=1,
    )
    event = direct.parse_flow(bytes(raw))
    assert event.kind is layout.FlowKind.CLOSED
    assert event.client == (IPv4Address("10.0.0.2"), 40000)
    assert event.target == (WEB, 8080)
    assert event.original == (IPv6Address("fd96::9"), 80)
    assert (event.id, event.generation, event.sent_bytes, event.received_bytes) == (5, 9, 3, 4)
    assert event.aborted is True
