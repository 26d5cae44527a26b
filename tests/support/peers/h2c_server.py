"""A plaintext HTTP/2 server around one `Session` per connection, for foreign clients and testers.

CONNECT echoes; every other request gets 400 and a line of text, so that DATA and its windows are
used too: conformance testers ask with GET. Two of their opinions are not ours: RFC 7540's
priorities mean nothing any more (RFC 9113 5.3.2), and a content-length is not compared with the
DATA of a request that is refused anyway.

Usage: python -m tests.support.peers.h2c_server [--port 0] [--window BYTES] [--frame BYTES]
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ztunnel.hbone.events import (
    DataReceived,
    Event,
    PeerSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.stream import Stream

NO_TUNNEL = b"this server is for tunnels only\n"
READ_BYTES = 65_536
# A tester that hangs must not keep a thread: no test of ours or of theirs is silent for this long.
SILENCE_S = 20.0


@dataclass(eq=False)
class Echo:
    """The output that one stream still has to send."""

    stream: Stream
    waiting: bytearray = field(default_factory=bytearray)
    consumes: bool = True  # what came from the peer counts in its windows
    ended: bool = False

    def push(self, session: Session) -> bool:
        """Say what the windows allow; False when everything has been said for ever."""
        while self.waiting and (room := min(session.room(self.stream), len(self.waiting))):
            session.send_data(self.stream, self.waiting[:room])
            del self.waiting[:room]
            if self.consumes:
                session.consumed(self.stream, room)
        if self.ended and not self.waiting and self.stream.state.sendable:
            session.end(self.stream)
        return not self.stream.state.local_ended


class Connection:
    """One client's: events in, answers into the session."""

    def __init__(self, settings: SessionSettings) -> None:
        self.session = Session(Role.SERVER, settings)
        self.session.start()
        self.echoes: dict[int, Echo] = {}

    def receive(self, data: bytes) -> None:
        for event in self.session.receive(data):
            self._act(event)

    def _act(self, event: Event) -> None:
        match event:
            case RequestReceived(stream, method, ended=ended):
                self._answer(stream, method == "CONNECT", ended)
            case DataReceived(stream, data):
                self._take(stream, data)
            case StreamEnded(stream) if (echo := self.echoes.get(stream.id)) is not None:
                echo.ended = True
                self._push(echo)
            case StreamReset(stream):
                self.echoes.pop(stream.id, None)
            case WindowOpened() | PeerSettingsChanged():
                for echo in list(self.echoes.values()):
                    self._push(echo)
            case _:
                pass

    def _answer(self, stream: Stream, tunnel: bool, ended: bool) -> None:
        echo = Echo(stream, consumes=tunnel, ended=ended or not tunnel)
        if not tunnel:
            echo.waiting += NO_TUNNEL
        self.echoes[stream.id] = echo
        self.session.respond(stream, 200 if tunnel else 400, [], end_stream=False)
        self._push(echo)

    def _take(self, stream: Stream, data: memoryview) -> None:
        echo = self.echoes.get(stream.id)
        if echo is None or not echo.consumes:
            self.session.consumed(stream, len(data))
            return
        echo.waiting += data
        self._push(echo)

    def _push(self, echo: Echo) -> None:
        if not echo.push(self.session):
            self.echoes.pop(echo.stream.id, None)


def serve_one(sock: socket.socket, settings: SessionSettings) -> None:
    """Until the client is gone or breaks the rules."""
    connection = Connection(settings)
    session = connection.session
    with sock:
        sock.settimeout(SILENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                sock.sendall(session.take())
                if session.closed:
                    break
                data = sock.recv(READ_BYTES)
                if not data:
                    return
                connection.receive(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(READ_BYTES):  # or the kernel's reset overtakes the GOAWAY
                pass
        except OSError:
            return  # testers close as they like


def _accept(listener: socket.socket, settings: SessionSettings) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # closed: the end
        threading.Thread(target=serve_one, args=(sock, settings), daemon=True).start()


@contextmanager
def h2c_server(settings: SessionSettings = SERVER_SETTINGS, port: int = 0) -> Iterator[int]:
    """The port on loopback that is served while the block runs."""
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        acceptor = threading.Thread(target=_accept, args=(listener, settings), daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(SILENCE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--window", type=int, default=SERVER_SETTINGS.initial_window_bytes)
    parser.add_argument("--frame", type=int, default=SERVER_SETTINGS.max_frame_bytes)
    options = parser.parse_args()
    settings = SessionSettings(
        initial_window_bytes=options.window,
        max_frame_bytes=options.frame,
        header_list_bytes=SERVER_SETTINGS.header_list_bytes,
        max_concurrent_streams=SERVER_SETTINGS.max_concurrent_streams,
    )
    with h2c_server(settings, options.port) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
