"""Entries of the direct path's tables, byte by byte."""

from __future__ import annotations

import socket

import pytest

from agent.datapath import entries
from agent.datapath.entries import LocalEndpoint
from bpf import layout
from control.model.address import Endpoint, parse_address

WEB = parse_address("10.0.0.3")


def endpoint(weight: int) -> LocalEndpoint:
    return LocalEndpoint(weight, 7, Endpoint(WEB, 8080))


def test_a_service_is_written_with_running_sums() -> None:
    value = entries.service_value(10, [endpoint(1), endpoint(0), endpoint(4)])
    assert (value.total, value.count) == (10, 3)
    assert [each.cumulative for each in value.slots[:3]] == [1, 1, 5]
    assert value.slots[2].workload == 7
    assert bytes(value.slots[2].ip) == bytes(10) + b"\xff\xff" + WEB
    assert socket.ntohs(value.slots[2].port) == 8080


def test_endpoints_beyond_the_slots_count_as_elsewhere() -> None:
    value = entries.service_value(40, [endpoint(2)] * 20)
    assert (value.count, value.slots[layout.SLOTS_MAX - 1].cumulative) == (16, 32)


@pytest.mark.parametrize(("total", "weights"), [(0, []), (3, [2, 2]), (2**32, [1]), (-1, [])])
def test_weights_that_do_not_add_up_are_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        entries.service_value(total, [endpoint(weight) for weight in weights])


def test_keys_have_ports_in_network_order_and_zero_pads() -> None:
    verdict = bytes(entries.verdict_key(1, 2, 0x1234))
    assert verdict[8:] == b"\x12\x34\0\0"
    service = bytes(entries.service_key(1, parse_address("fd96::9"), 80))
    assert service[4:8] == b"\0\x50\0\0"
    assert service[8:] == parse_address("fd96::9")
