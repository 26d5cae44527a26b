"""Packet capture of one interface: counts what a person with a packet sniffer would look for.

Run as a program in the network namespace of the interface; it prints one JSON object when its
standard input closes. It keeps no packets, only counts, so it is bounded however long it runs.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
from dataclasses import asdict, dataclass, field

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024  # a bulk transfer must not overrun it
SNAPSHOT_BYTES = 65536 + 64  # a veth carries segments of up to 64 KiB
HBONE_PORT = 15008
CONTROL_PORTS = frozenset({15012})  # nodes ↔ control plane: TLS as well, but not pods' traffic
PORTS_MAX = 64  # distinct ports that are told apart

# ServerHello's supported_versions extension (RFC 8446, 4.2.1) saying TLS 1.3.
TLS13_CHOSEN = bytes.fromhex("002b00020304")
TLS_HANDSHAKE, TLS_APPLICATION_DATA, SERVER_HELLO = 22, 23, 2


@dataclass(slots=True)
class PacketCounts:
    """Packets that crossed the link. "Payload" packets are TCP packets with at least one byte."""

    packets: int = 0
    marker_packets: int = 0
    hbone_payload_packets: int = 0
    tls_records: int = 0
    tls13_handshakes: int = 0
    plaintext_payload_packets: int = 0
    plaintext_ports: dict[int, int] = field(default_factory=dict)
    lost: int = 0  # packets that the kernel dropped unseen: above 0 the rest proves nothing


def tcp_payload(frame: memoryview) -> tuple[int, int, memoryview] | None:
    """(source port, destination port, payload) of an Ethernet frame, or None if it is not TCP."""
    if len(frame) < 54:
        return None
    ether_type = frame[12] << 8 | frame[13]
    if ether_type == 0x0800 and frame[23] == socket.IPPROTO_TCP:
        start = 14 + (frame[14] & 15) * 4
        end = 14 + (frame[16] << 8 | frame[17])
    elif ether_type == 0x86DD and frame[20] == socket.IPPROTO_TCP:
        start = 54
        end = start + (frame[18] << 8 | frame[19])
    else:
        return None
    if len(frame) < start + 20:
        return None
    source, destination = struct.unpack_from(">HH", frame, start)
    offset = start + (frame[start + 12] >> 4) * 4
    # Length 0 is how offloading marks a segment larger than the field can say.
    return source, destination, frame[offset : end if end > start else len(frame)]


def count(counts: PacketCounts, frame: memoryview, marker: bytes) -> None:
    counts.packets += 1
    parsed = tcp_payload(frame)
    if parsed is None:
        return
    source, destination, payload = parsed
    if not len(payload) or CONTROL_PORTS & {source, destination}:
        return
    data = bytes(payload)
    counts.marker_packets += marker in data
    if HBONE_PORT in (source, destination):
        counts.hbone_payload_packets += 1
        if len(data) > 5 and data[1] == 3 and data[0] in (TLS_HANDSHAKE, TLS_APPLICATION_DATA):
            counts.tls_records += 1
            if data[0] == TLS_HANDSHAKE and data[5] == SERVER_HELLO and TLS13_CHOSEN in data:
                counts.tls13_handshakes += 1
        return
    counts.plaintext_payload_packets += 1
    port = min(source, destination)
    if port in counts.plaintext_ports or len(counts.plaintext_ports) < PORTS_MAX:
        counts.plaintext_ports[port] = counts.plaintext_ports.get(port, 0) + 1


def main() -> None:
    interface, marker = sys.argv[1], sys.argv[2].encode()
    counts = PacketCounts()
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    sock.bind((interface, 0))
    sock.setblocking(False)
    buffer = bytearray(SNAPSHOT_BYTES)
    view = memoryview(buffer)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([sock, sys.stdin], [], [])
        try:
            while sock in readable:
                count(counts, view[: sock.recv_into(buffer)], marker)
        except BlockingIOError:
            pass
        if sys.stdin in readable:
            break
    _, counts.lost = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps(asdict(counts)), flush=True)


if __name__ == "__main__":
    main()
