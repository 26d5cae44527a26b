"""The tour's packet counter, on frames made by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lab.tour.capture import PORTS_MAX, TLS13_CHOSEN, PacketCounts, count, tcp_payload

MARKER = b"marker"


def segment(source: int, destination: int, payload: bytes) -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, 1, 1, 5 << 4, 0, 0, 0, 0) + payload


def v4(source: int, destination: int, payload: bytes, *, padding: int = 0) -> memoryview:
    tcp = segment(source, destination, payload)
    head = struct.pack(">BBHHHBBH8x", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0)
    return memoryview(bytes(12) + b"\x08\x00" + head + tcp + bytes(padding))


def v6(source: int, destination: int, payload: bytes) -> memoryview:
    tcp = segment(source, destination, payload)
    head = struct.pack(">IHBB32x", 6 << 28, len(tcp), 6, 64)
    return memoryview(bytes(12) + b"\x86\xdd" + head + tcp)


@pytest.mark.parametrize("frame", [v4(1, 2, b"abc", padding=4), v6(1, 2, b"abc")])
def test_a_payload_is_found_in_both_families(frame: memoryview) -> None:
    found = tcp_payload(frame)
    assert found is not None
    assert (found[0], found[1], bytes(found[2])) == (1, 2, b"abc")


def test_plaintext_and_its_marker_are_counted_by_port() -> None:
    counts = PacketCounts()
    count(counts, v4(40000, 80, b"GET " + MARKER), MARKER)
    count(counts, v6(40000, 80, b"GET"), MARKER)
    count(counts, v4(40000, 80, b""), MARKER)  # an acknowledgement says nothing
    count(counts, v4(40000, 15012, MARKER), MARKER)  # a node and its control plane
    assert (counts.packets, counts.marker_packets, counts.plaintext_payload_packets) == (4, 1, 2)
    assert counts.plaintext_ports == {80: 2}


def test_tls_is_recognised_on_the_port_of_hbone() -> None:
    counts = PacketCounts()
    hello = bytes([22, 3, 3, 0, 60, 2]) + TLS13_CHOSEN
    for payload in (hello, bytes([23, 3, 3, 0, 60, 9]), b"GET / HTTP/1.1"):
        count(counts, v4(40000, 15008, payload), MARKER)
    assert (counts.hbone_payload_packets, counts.tls_records, counts.tls13_handshakes) == (3, 2, 1)
    assert counts.plaintext_payload_packets == 0


def test_ports_are_told_apart_up_to_a_bound() -> None:
    counts = PacketCounts()
    for port in range(2 * PORTS_MAX):
        count(counts, v4(60000, 1000 + port, b"x"), MARKER)
    assert len(counts.plaintext_ports) == PORTS_MAX
    assert counts.plaintext_payload_packets == 2 * PORTS_MAX


@given(st.binary(max_size=200))
def test_any_frame_is_tcp_or_not(data: bytes) -> None:
    tcp_payload(memoryview(data))
