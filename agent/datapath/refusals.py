"""Connections that the kernel half refuses by itself, by the counter that tells of them."""

from collections.abc import Mapping
from typing import Final

from bpf.layout import Counter

REFUSALS: Final[Mapping[Counter, str]] = {
    Counter.DENIED_CLOSED: "connect() of a pod out of which nothing may go",
    Counter.DENIED_NO_ADDRESS: "connect() of a family in which the pod has no address",
    Counter.DENIED_LINK_LOCAL: "connect() of a captured pod to a link-local address",
    Counter.DENIED_SOURCE_ROUTE: "a source route on a TCP socket of a captured pod",
    Counter.CLIENT_REFUSED: "a ztunnel's word about a client that cannot be read",
    Counter.STORAGE_FAILED: "no memory for a connection's entry",
    Counter.INBOUND_DROPPED: "SYN to a captured pod for which no ztunnel listens",
    Counter.INBOUND_STALE: "SYN of a direct connection that was allowed, and is not any more",
    Counter.INBOUND_UNVOUCHED: "SYN in the name of a captured pod, and nobody vouches for it",
    Counter.INBOUND_STRICT: "SYN without an identity, to a port that asks everybody for one",
    Counter.INBOUND_REFUSED: "SYN to an address that is the mesh's own in a captured pod",
}

# Those of a SYN, for which its pod's table says more.
SYN_REFUSALS: Final = frozenset(
    each.name.lower() for each in REFUSALS if each.name.startswith("INBOUND_")
)


def increased(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Reason → refusals since then, if any."""
    more = {each.name.lower(): 0 for each in REFUSALS}
    more = {name: now.get(name, 0) - before.get(name, 0) for name in more}
    return {name: count for name, count in more.items() if count > 0}
