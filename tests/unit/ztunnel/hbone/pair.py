"""Two sessions back to back in memory, and hand-made frames for what no session would send."""

from collections.abc import Sequence

from ztunnel.hbone.events import DataReceived, Event, RequestReceived, ResponseReceived
from ztunnel.hbone.frames import FRAME_HEADER, PREFACE, pack_frame, pack_settings
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.stream import Stream

SMALL = SessionSettings(initial_window_bytes=1_000, connection_window_bytes=100_000)


class Pair:
    """A client and a server that have exchanged their SETTINGS."""

    def __init__(
        self,
        client_settings: SessionSettings = CLIENT_SETTINGS,
        server_settings: SessionSettings = SERVER_SETTINGS,
    ) -> None:
        self.client = Session(Role.CLIENT, client_settings)
        self.server = Session(Role.SERVER, server_settings)
        self.client.start()
        self.server.start()
        for _ in range(2):
            self.to_server()
            self.to_client()

    def to_server(self) -> list[Event]:
        return self.server.receive(bytes(self.client.take()))

    def to_client(self) -> list[Event]:
        return self.client.receive(bytes(self.server.take()))

    def tunnel(self, headers: Sequence[tuple[str, str]] = ()) -> tuple[Stream, Stream]:
        """An answered tunnel: the client's stream and the server's."""
        near = self.client.request("10.0.0.1:80", headers)
        (request,) = self.to_server()
        assert isinstance(request, RequestReceived)
        self.server.respond(request.stream, 200, [], end_stream=False)
        (response,) = self.to_client()
        assert isinstance(response, ResponseReceived)
        return near, request.stream


def data_of(events: Sequence[Event]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, DataReceived))


def plain(events: list[Event]) -> list[object]:
    """Events as comparable values, with neighbouring pieces of data joined."""
    out: list[object] = []
    for event in events:
        if isinstance(event, DataReceived):
            if out and isinstance(out[-1], tuple) and out[-1][0] == event.stream.id:
                out[-1] = (event.stream.id, out[-1][1] + bytes(event.data))
            else:
                out.append((event.stream.id, bytes(event.data)))
        else:
            out.append(repr(event))
    return out


def server_ready(settings: SessionSettings = SERVER_SETTINGS) -> Session:
    """A server whose client is the test's own bytes."""
    server = Session(Role.SERVER, settings)
    server.start()
    server.receive(PREFACE + pack_settings([]))
    server.take()
    return server


def frames_of(data: bytes | bytearray) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, stream id, payload) of each frame."""
    frames = []
    start = 0
    while start < len(data):
        head, flags, stream_id = FRAME_HEADER.unpack_from(data, start)
        end = start + 9 + (head >> 8)
        frames.append((head & 0xFF, flags, stream_id, bytes(data[start + 9 : end])))
        start = end
    return frames


# HPACK without state: literal fields, not indexed.
def field(name: bytes, value: bytes) -> bytes:
    assert len(name) < 127
    assert len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


CONNECT = field(b":method", b"CONNECT") + field(b":authority", b"10.0.0.1:80")


def request_frame(stream_id: int, block: bytes = CONNECT, flags: int = 0x4) -> bytes:
    return pack_frame(0x1, flags, stream_id, block)
