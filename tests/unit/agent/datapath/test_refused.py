"""A pod's table of refused SYNs: bytes of the kernel to addresses, ports and reasons."""

from __future__ import annotations

import ctypes
import struct
from types import SimpleNamespace
from typing import cast

import pytest

from agent.datapath import refused
from agent.datapath.maps import Map
from agent.datapath.refusals import SYN_REFUSALS
from agent.datapath.refused import RefusedSyn
from bpf import layout
from bpf.layout import Counter, RefusedSlot
from control.model.address import mapped, parse_address, parse_endpoint


def value(count: int, source: str, port: int) -> bytes:
    def address(text: str) -> layout.Address:
        return layout.Address.from_buffer_copy(mapped(parse_address(text)))

    return bytes(
        RefusedSlot(
            count=count,
            source=address(source),
            destination=address("fd00::2"),
            source_port=struct.unpack("=H", struct.pack("!H", port))[0],
            destination_port=struct.unpack("=H", struct.pack("!H", 8080))[0],
            reason=Counter.INBOUND_STRICT,
        )
    )


def test_each_slot_of_each_processor_that_was_used_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refused, "cpu_count_possible", lambda: 2)
    size = ctypes.sizeof(RefusedSlot)
    slots = {3: bytes(size) + value(5, "10.0.0.1", 40000)}

    def lookup(key: bytes, value_bytes: int) -> bytes:
        assert value_bytes == 2 * size
        return slots.get(struct.unpack("=I", key)[0], bytes(2 * size))

    table = cast(Map, SimpleNamespace(lookup=lookup, value_bytes=size))
    destination = parse_endpoint("[fd00::2]:8080")
    syn = RefusedSyn("inbound_strict", parse_endpoint("10.0.0.1:40000"), destination)
    assert refused.read(table) == {(3, 1): (5, syn)}


def test_a_reason_of_a_syn_is_one_that_the_table_can_hold() -> None:
    assert {
        "inbound_dropped",
        "inbound_stale",
        "inbound_unvouched",
        "inbound_strict",
        "inbound_refused",
    } == SYN_REFUSALS
