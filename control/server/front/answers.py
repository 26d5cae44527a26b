"""gRPC's side of a connection: its answers go to the relay, which has the client's side."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control.server.front.relay import Relay


class Answers(asyncio.BufferedProtocol):
    """gRPC's side of a relay."""

    def __init__(self, relay: Relay, buffer: bytearray, sock: socket.socket) -> None:
        self._relay = relay
        self._buffer = buffer
        self._sock = sock

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self._relay.answered(memoryview(self._buffer)[:nbytes])

    def pause_writing(self) -> None:
        self._relay.grpc_is_full(True)

    def resume_writing(self) -> None:
        self._relay.grpc_is_full(False)

    def eof_received(self) -> bool:
        self._relay.grpc_ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_rest()
        self._relay.grpc_ended()

    def _read_rest(self) -> None:
        """A write found gRPC gone. What it said before is still in the socket: the ends of streams,
        when it stops in order."""
        try:
            while count := self._sock.recv_into(self._buffer):
                self._relay.answered(memoryview(self._buffer)[:count])
        except OSError:
            return
