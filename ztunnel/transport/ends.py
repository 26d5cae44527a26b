"""The ends of tunnels and connections in words, and the owners of streams that hear of them."""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Resumable


class TunnelEnd(Enum):
    """Reason why a tunnel ended; the value is the log field."""

    CLOSED = "closed by the peer"
    CUT = "connection cut"
    IDLE = "idle"
    DISPLACED = "made room for others"
    DISMISSED = "dismissed"
    DRAINED = "drained"
    PING_TIMEOUT = "keepalive timed out"
    RETIRED = "its workload has gone, or it did not answer"
    HANDSHAKE_TIMEOUT = "handshake timed out"
    TLS = "TLS failed"
    REJECTED = "cut right after the handshake; the peer may have refused our certificate"
    PROTOCOL = "HTTP/2 failed"
    POD_DELETED = "pod deleted"
    INTERNAL_ERROR = "internal error"


class RelayEnd(Enum):
    """Reason why a connection ended; everything but FINISHED is logged as its error."""

    FINISHED = ""
    APP_RESET = "connection reset by the app"
    PEER_RESET = "connection reset by the peer"
    PEER_REFUSED = "the peer's tunnel refused the stream"
    TUNNEL_LOST = "tunnel lost"
    POLICY = "closed due to policy change"
    POD_DELETED = "closed because the pod was deleted"
    DRAINED = "closed by drain"
    INTERNAL_ERROR = "internal error"


# Ends that come from the other side: the app still gets the bytes that came before. Ends that are
# meant for this connection (policy, deletion, our own bugs) take effect at once.
AFTER_THE_REST: Final = frozenset(
    {RelayEnd.PEER_RESET, RelayEnd.PEER_REFUSED, RelayEnd.TUNNEL_LOST, RelayEnd.DRAINED}
)


class StreamOwner(Protocol):
    """The connection that a stream belongs to: waiting for a response, dialling, or relaying."""

    def on_response(self, status: int, ended: bool) -> None: ...

    def on_data(self, data: memoryview) -> None: ...

    def on_data_run(self, pieces: list[memoryview]) -> None: ...

    def on_end(self) -> None: ...

    def on_reset(self, code: int) -> None: ...

    def on_window(self) -> None: ...

    def on_tunnel_lost(self, reason: RelayEnd) -> None: ...

    def on_bug(self) -> None: ...


class Queue:
    """Relays that wait for room in the same tunnel.

    Relays that had a share of the current turn queue behind those that had none, so every relay
    gets its turn whatever the order in which the sockets become ready.
    """

    __slots__ = ("_had_none", "_had_share")

    def __init__(self) -> None:
        self._had_none: dict[Resumable, None] = {}
        self._had_share: dict[Resumable, None] = {}

    def add(self, relay: Resumable, had_share: bool) -> None:
        (self._had_share if had_share else self._had_none)[relay] = None

    def __bool__(self) -> bool:
        return bool(self._had_none or self._had_share)

    def resume(self, reactor: Reactor) -> None:
        for waiting in (self._had_none, self._had_share):
            for relay in waiting:
                reactor.again(relay)
            waiting.clear()

    def clear(self) -> None:
        self._had_none.clear()
        self._had_share.clear()
