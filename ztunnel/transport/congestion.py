"""Takes the pacing off bulk between near hosts.

"Near" goes by the shortest round trip that the kernel has seen; a connection that is not paced is
left alone. BBR spreads its packets over time, with a timer for each burst. Within a host or a rack
that gains nothing, and the timers take a third of the CPU of a bulk stream.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import Final

# Algorithms that pace inside TCP; all others stay as the host's owner chose them.
PACED: Final = frozenset((b"bbr", b"bbr2", b"bbr3"))
# Every kernel has it, and every process may choose it.
UNPACED: Final = b"reno"
# Up to this it is the same host, rack or zone. Farther away the host's choice has its reasons.
NEAR_US_MAX: Final = 1000

_NAME_BYTES: Final = 16  # TCP_CA_NAME_MAX
_INFO_BYTES: Final = 152
_min_rtt_us = Struct("I").unpack_from
_MIN_RTT_AT: Final = 148  # tcpi_min_rtt; in tcp_info since Linux 4.6


def is_near(info: bytes) -> bool:
    """True if the kernel's tcp_info shows a near host; False without a sample."""
    if len(info) < _INFO_BYTES:
        return False
    rtt_us: int = _min_rtt_us(info, _MIN_RTT_AT)[0]
    return 0 < rtt_us <= NEAR_US_MAX


def near(sock: socket.socket) -> bool:
    """True if the other end is near; False if that is unknown, as for a socket that is not TCP."""
    try:
        return is_near(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES))
    except OSError:
        return False


def unpace(sock: socket.socket) -> None:
    """Stop the pacing of a socket to a near host, best effort.

    Called once a transfer is known to be bulk.
    """
    try:
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES)
        if name.rstrip(b"\0") not in PACED:
            return
        if near(sock):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED)
    except OSError:
        pass  # not TCP, or gone: the next call on it will tell
