"""Records of the ring, read twice: by the twin of the header, and in one go."""

from __future__ import annotations

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from agent.datapath.direct import parse_flow, parse_socket
from agent.direct.kernel import parse_record
from bpf import layout
from bpf.layout import FlowKind
from control.model.address import Address, Endpoint

RECORD_BYTES = ctypes.sizeof(layout.FlowEvent)
MAPPED = bytes(10) + b"\xff\xff"


def text(end: Endpoint) -> tuple[bytes, int]:
    return bytes(end.address), end.port


@given(
    st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES),
    st.sampled_from([FlowKind.OPENED, FlowKind.CLOSED, FlowKind.FAILED]),
    st.booleans(),
    st.binary(min_size=4, max_size=4),
)
def test_both_ways_to_read_a_record_agree(
    data: bytes, kind: FlowKind, is_aborted: bool, ip4: bytes
) -> None:
    record = layout.FlowEvent.from_buffer_copy(data)
    record.kind, record.aborted = kind, is_aborted
    record.client = layout.Address.from_buffer_copy(MAPPED + ip4)
    slow, fast = parse_flow(bytes(record)), parse_record(bytes(record))
    ends = (slow.client, slow.target, slow.original)
    assert [text(each) for each in (fast.client, fast.target, fast.original)] == [
        (ip.packed, port) for ip, port in ends
    ]
    assert (fast.id, fast.source, fast.destination) == (
        slow.id,
        slow.source_id,
        slow.destination_id,
    )
    assert (fast.sent, fast.received) == (slow.sent_bytes, slow.received_bytes)
    assert (fast.srtt_us, fast.retransmits) == (slow.srtt_us, slow.retransmits)
    assert (fast.age_s, fast.is_closed) == (slow.age_ns / 1e9, kind is not FlowKind.OPENED)
    expected = "failed" if kind is FlowKind.FAILED else "aborted" if is_aborted else ""
    assert fast.error == expected
    assert fast.client == Endpoint(Address(ip4), slow.client[1])


def test_a_socket_tells_of_itself_once_it_is_established() -> None:
    raw = layout.DirectSocket(source=1, destination=2, client_port=0x409C, established=1)
    raw.client = layout.Address.from_buffer_copy(MAPPED + bytes([10, 0, 0, 1]))
    found = parse_socket(7, bytes(raw))
    assert found is not None
    assert (found.id, found.source_id, str(found.client[0]), found.client[1]) == (
        7,
        1,
        "10.0.0.1",
        40000,
    )
    raw.established = 0
    assert parse_socket(7, bytes(raw)) is None
    assert parse_socket(7, b"") is None
