"""The bounds of a worker that its tenants share, by name, and what the host allows of them."""

from __future__ import annotations

from typing import Final

from ztunnel.tenants.portions import Quota

MIB: Final = 1024 * 1024

# Connections of apps. The pod that opened one pays, or the peer or address that it came from.
# Descriptors lower it. Plaintext from addresses has half at most, since addresses come cheap.
CONNECTIONS: Final = Quota(0, total=1 << 20, floor=64, strangers=2)
# Handshakes under way, some 30 KiB and 1 ms of CPU each: what strangers can cause. Over it the
# oldest one goes. A rollout of 200 nodes at once still fits.
HANDSHAKES: Final = Quota(1, total=256, floor=2)
# Tunnels from peers that have passed the handshake, some 36 KiB each.
TUNNELS: Final = Quota(2, total=16_384, floor=16)
# Tunnels among them without a stream. Over it the oldest one ends in order; its peer opens another
# when it needs it.
IDLE_TUNNELS: Final = Quota(3, total=2048, floor=4)
# Bytes that came, and wait because an app or a peer does not read. Each tunnel's window is 16 MiB.
QUEUED_BYTES: Final = Quota(4, total=512 * MIB, floor=MIB)
# Label sets of metrics. A mesh of 100 workloads that all talk to each other has 10,000 pairs; over
# it a new one is counted as "other".
LABEL_SETS: Final = Quota(5, total=10_000, floor=8)
# Sockets without a connection, whose last bytes are on their way. Each holds a descriptor and one
# window of bytes at most.
FAREWELLS: Final = Quota(6, total=1024, floor=8)
# Connections that were accepted, and wait for a turn of the address that they come from. Over it
# the oldest one goes.
ARRIVALS: Final = Quota(7, total=1024, floor=4)
# Descriptors left for listeners, namespaces, the supervisor and dials under way.
DESCRIPTORS_RESERVED: Final = 128
# A connection needs its own socket and one towards the app or (shared) the tunnel.
DESCRIPTORS_PER_CONNECTION: Final = 2
# Tunnels have at most this part of the descriptors, connections the rest.
TUNNEL_DESCRIPTORS_PART: Final = 8
_LEAST: Final = 16  # on a host that allows next to nothing


def tunnels_allowed(descriptors: int) -> int:
    """Tunnels on a host that allows so many open files."""
    return max(_LEAST, (descriptors - DESCRIPTORS_RESERVED) // TUNNEL_DESCRIPTORS_PART)


def idle_tunnels_allowed(descriptors: int) -> int:
    """Below the bound for all tunnels, so that idle ones go before any is refused."""
    return tunnels_allowed(descriptors) // 2


def handshakes_allowed(descriptors: int) -> int:
    return max(_LEAST, tunnels_allowed(descriptors) // 2)


def farewells_allowed(descriptors: int) -> int:
    return max(_LEAST, tunnels_allowed(descriptors) // 4)


def arrivals_allowed(descriptors: int) -> int:
    return max(_LEAST, tunnels_allowed(descriptors) // 4)


def connections_allowed(descriptors: int) -> int:
    """Connections: tunnels, handshakes, farewells and arrivals leave so many."""
    tunnels = min(TUNNELS.total, tunnels_allowed(descriptors))
    handshakes = min(HANDSHAKES.total, handshakes_allowed(descriptors))
    farewells = min(FAREWELLS.total, farewells_allowed(descriptors))
    arrivals = min(ARRIVALS.total, arrivals_allowed(descriptors))
    left = descriptors - DESCRIPTORS_RESERVED - tunnels - handshakes - farewells - arrivals
    return max(_LEAST, left // DESCRIPTORS_PER_CONNECTION)
