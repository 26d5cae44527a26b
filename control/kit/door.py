"""Bounds of the doors that pages are served at, and the names that they go by. Values only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

# Names that a client on this host uses for us. A page that changes things and listens on TCP
# answers to no other: a web page in a browser on this host, or a service that can be made to fetch
# an address, sends another Host, or an Origin (DNS rebinding, request forgery).
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class DoorBounds:
    connections: int  # from all sources
    connections_network: int  # from one IPv6 /64
    connections_each: int  # from one address
    opened_per_s: float  # connections of one address, and at once after a quiet time
    opened_burst: float
    asked_per_s: float  # requests of one address; more wait
    asked_burst: float
    body_bytes: int  # in a request
    request_s: float  # from its first byte, or the connection's start, to its end
    idle_s: float  # between two requests
    answer_s: float  # for taking an answer, and a second more for each `answer_bytes_per_s`
    answer_bytes_per_s: int


# A scraper, a prober, a few people for each source; 128 places cost 20 MiB at the very most.
PORT = DoorBounds(
    connections=128,
    connections_network=64,
    connections_each=16,
    opened_per_s=50.0,
    opened_burst=100.0,
    asked_per_s=100.0,
    asked_burst=200.0,
    body_bytes=16 * 1024,
    request_s=5.0,
    idle_s=30.0,
    answer_s=10.0,
    answer_bytes_per_s=256 * 1024,
)
# A kubelet that starts all its pods at once, each registration for up to a minute; a pager that
# somebody reads at leisure.
UNIX_SOCKET = DoorBounds(
    connections=512,
    connections_network=512,
    connections_each=512,
    opened_per_s=10_000.0,
    opened_burst=10_000.0,
    asked_per_s=10_000.0,
    asked_burst=10_000.0,
    body_bytes=1024 * 1024,
    request_s=30.0,
    idle_s=30.0,
    answer_s=300.0,
    answer_bytes_per_s=256 * 1024,
)


def is_loopback_port(where: str) -> bool:
    """True for an `address:port` that only this host can reach."""
    host = where.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
