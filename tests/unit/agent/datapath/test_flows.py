"""Reports of direct connections, compared with what the header's twin reads."""

from __future__ import annotations

import ctypes
import socket

from hypothesis import given
from hypothesis import strategies as st

from agent.datapath.flows import parse_record, parse_socket
from bpf import layout
from bpf.layout import FlowKind
from control.model.address import Endpoint, canonical, parse_endpoint

RECORD_BYTES = ctypes.sizeof(layout.FlowEvent)
MAPPED = bytes(10) + b"\xff\xff"


def endpoint(address: layout.Address, port: int) -> Endpoint:
    return Endpoint(canonical(bytes(address)), socket.ntohs(port))


@given(
    st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES),
    st.sampled_from([FlowKind.OPENED, FlowKind.CLOSED, FlowKind.FAILED]),
    st.booleans(),
    st.binary(min_size=4, max_size=4),
)
def test_a_record_is_read_as_the_header_lays_it_out(
    data: bytes, kind: FlowKind, is_aborted: bool, ip4: bytes
) -> None:
    twin = layout.FlowEvent.from_buffer_copy(data)
    twin.kind, twin.aborted = kind, is_aborted
    twin.client = layout.Address.from_buffer_copy(MAPPED + ip4)
    found = parse_record(bytes(twin))
    assert found.client == endpoint(twin.client, twin.client_port)
    assert found.client.address == ip4
    assert found.target == endpoint(twin.target, twin.target_port)
    assert found.original == endpoint(twin.original, twin.original_port)
    assert (found.id, found.source, found.destination) == (twin.id, twin.source, twin.destination)
    assert (found.sent, found.received) == (twin.sent, twin.received)
    assert (found.srtt_us, found.retransmits) == (twin.srtt_us, twin.retransmits)
    assert (found.age_s, found.is_closed) == (twin.age_ns / 1e9, kind is not FlowKind.OPENED)
    error = "failed" if kind is FlowKind.FAILED else "aborted" if is_aborted else ""
    assert found.error == error


def test_a_socket_tells_of_itself_once_it_is_established() -> None:
    raw = layout.DirectSocket(source=1, destination=2, established=1, opened_ns=3_000_000_000)
    raw.client = layout.Address.from_buffer_copy(MAPPED + bytes([10, 0, 0, 1]))
    raw.client_port = socket.htons(40000)
    found = parse_socket(7, bytes(raw), 5_000_000_000)
    assert found is not None
    assert (found.id, found.source, found.destination, found.age_s) == (7, 1, 2, 2.0)
    assert found.client == parse_endpoint("10.0.0.1:40000")
    assert not found.is_closed
    raw.established = 0
    assert parse_socket(7, bytes(raw), 0) is None
    assert parse_socket(7, b"", 0) is None
