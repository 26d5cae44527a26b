"""How a tunnel ends, whom it tells what, and who waits for it: the words around `tunnel.py`."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from control.model.identity import SpiffeId
from ztunnel.hbone.events import RequestReceived

if TYPE_CHECKING:
    from ztunnel.loop.reactor import Reactor
    from ztunnel.transport.relay import RelayEnd, StreamRelay
    from ztunnel.transport.tunnel import Tunnel


class TunnelEnd(Enum):
    """Why a tunnel is gone; the value is the log field."""

    CLOSED = "closed by the peer"
    CUT = "connection cut"
    IDLE = "idle"
    DRAINED = "drained"
    PING_TIMEOUT = "keepalive timed out"
    HANDSHAKE_TIMEOUT = "handshake timed out"
    TLS = "TLS failed"
    REJECTED = "cut right after the handshake; the peer may have refused our certificate"
    PROTOCOL = "HTTP/2 failed"
    POD_DELETED = "pod deleted"
    INTERNAL_ERROR = "internal error"


class StreamOwner(Protocol):
    """Whoever a stream belongs to: waiting for an answer, dialling the app, or relaying."""

    def on_response(self, status: int, ended: bool) -> None: ...

    def on_data(self, data: memoryview) -> None: ...

    def on_data_run(self, pieces: list[memoryview]) -> None: ...

    def on_end(self) -> None: ...

    def on_reset(self, code: int) -> None: ...

    def on_window(self) -> None: ...

    def on_tunnel_lost(self, reason: RelayEnd) -> None: ...

    def on_bug(self) -> None: ...


class TunnelUser(Protocol):
    """Who has the tunnel: the pool, or the inbound side."""

    def tunnel_opened(self, tunnel: Tunnel, peer: SpiffeId) -> None:
        """TLS is done and the peer is verified; streams may be opened."""

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None: ...

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        """A stream is over, or the peer allows more."""

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        """The peer wants no new streams."""

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        """Called once; streams have been told before."""


class Queue:
    """Relays that wait for the same thing. Who had a share of this turn goes behind who had none,
    so that everybody's turn comes whatever the order in which their sockets are served."""

    __slots__ = ("_had_none", "_had_share")

    def __init__(self) -> None:
        self._had_none: dict[StreamRelay, None] = {}
        self._had_share: dict[StreamRelay, None] = {}

    def add(self, relay: StreamRelay, had_share: bool) -> None:
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
