"""One forged TCP segment, as whoever may open raw sockets can send it."""

from __future__ import annotations

import socket
import struct

from tests.support.kernel.netns import Address, Pod

SYN, RST, ACK = 0x02, 0x04, 0x10
FAST_OPEN = bytes([34, 2, 1, 1])  # the option without a cookie


def send_segment(pod: Pod, source: Address, target: Address, flags: int) -> None:
    """From inside the pod, IPv4, with any source and a right checksum."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    header = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 0, 5 << 4, flags, 65535, 0, 0)
    total = sum(struct.unpack("!16H", ends + struct.pack("!HH", 6, len(header)) + header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    packet = header[:16] + struct.pack("!H", checksum) + header[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
    with pod.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(ip + packet, (target[0], 0))


def send_first_data(pod: Pod, source: Address, target: Address, data: bytes) -> None:
    """A SYN with data for TCP fast open, IPv6, from any source."""
    size = 24 + len(data)
    header = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 0, 6 << 4, SYN, 65535, 0, 0)
    segment = bytearray(header + FAST_OPEN + data)
    source_ip, target_ip = (socket.inet_pton(socket.AF_INET6, each[0]) for each in (source, target))
    summed = source_ip + target_ip + struct.pack("!II", size, 6) + segment + bytes(size % 2)
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    total = (total & 0xFFFF) + (total >> 16)
    segment[16:18] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    packet = struct.pack("!IHBB", 6 << 28, size, 6, 64) + source_ip + target_ip + segment
    with pod.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (target[0], 0))
