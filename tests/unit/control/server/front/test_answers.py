"""gRPC's side of a connection: its last words are passed on, whatever happened before."""

from __future__ import annotations

import socket
from typing import cast

from control.server.front.answers import Answers
from control.server.front.relay import Relay


class Heard:
    """The part of a relay that gRPC's side calls."""

    def __init__(self) -> None:
        self.bytes = b""
        self.ended = False

    def answered(self, view: memoryview) -> None:
        self.bytes += bytes(view)

    def grpc_ended(self) -> None:
        self.ended = True


def test_the_last_answers_survive_a_write_that_found_grpc_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(b"trailers" * 10)
    theirs.close()
    heard = Heard()
    side = Answers(cast(Relay, heard), bytearray(16), ours)
    side.connection_lost(BrokenPipeError())
    assert heard.bytes == b"trailers" * 10
    assert heard.ended
    ours.close()
