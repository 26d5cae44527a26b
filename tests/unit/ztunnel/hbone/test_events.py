"""Events: each has a frame that makes it, and nothing else does."""

from typing import get_args

import pytest

from tests.unit.ztunnel.hbone.pair import Pair, request_frame, server_ready
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    PeerSettingsChanged,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    pack_frame,
    pack_goaway,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream

PAYLOAD = b"12345678"


def asked() -> tuple[Session, Stream]:
    """A client that waits for its answer, with both send windows used up."""
    client = Pair().client
    stream = client.request("10.0.0.1:80", [])
    stream.send_window = client.send_window = 0
    return client, stream


def answered() -> tuple[Session, Stream]:
    client, stream = asked()
    client.receive(pack_frame(HEADERS, END_HEADERS, stream.id, b"\x88"))
    return client, stream


FRAMES: dict[type[Event], tuple[bytes, tuple[object, ...]]] = {
    ResponseReceived: (pack_frame(HEADERS, END_HEADERS, 1, b"\x88"), (200, [], False)),
    DataReceived: (pack_frame(DATA, 0, 1, b"words"), (b"words",)),
    StreamEnded: (pack_frame(DATA, END_STREAM, 1, b""), ()),
    StreamReset: (pack_rst_stream(1, 0xABC), (0xABC,)),
    WindowOpened: (pack_window_update(1, 5), ()),
    PeerSettingsChanged: (pack_settings([]), ()),
    PingAcknowledged: (pack_frame(PING, ACK, 0, PAYLOAD), (PAYLOAD,)),
    GoAwayReceived: (pack_goaway(7, 0xABC), (7, 0xABC)),
    ConnectionFailed: (pack_frame(SETTINGS, 0, 1), (1, "SETTINGS on a wrong stream")),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_makes_its_event_with_what_was_in_it(kind: type[Event]) -> None:
    frame, expected = FRAMES[kind]
    client, stream = asked() if kind is ResponseReceived else answered()
    (event,) = client.receive(frame)
    assert type(event) is kind
    found = [getattr(event, name) for name in kind.__match_args__]
    assert tuple(each for each in found if each is not stream) == expected
    assert (stream in found) == (kind.__match_args__[:1] == ("stream",))


def test_a_request_is_the_one_event_of_servers_alone() -> None:
    (event,) = server_ready().receive(request_frame(1))
    match event:
        case RequestReceived(stream, method, authority, headers, ended):
            assert stream.id == 1
            assert (method, authority, headers, ended) == ("CONNECT", "10.0.0.1:80", [], False)
        case _:
            raise AssertionError(event)
    assert {*FRAMES, RequestReceived} == set(get_args(Event))


def test_the_connections_window_opens_without_a_stream() -> None:
    client, _ = answered()
    assert client.receive(pack_window_update(0, 5)) == [WindowOpened(None)]


def test_data_is_a_view_of_the_buffer_that_was_received() -> None:
    client, _ = answered()
    buffer = bytearray(pack_frame(DATA, 0, 1, b"words"))
    (event,) = client.receive(buffer)
    assert isinstance(event, DataReceived)
    buffer[9:] = b"WORDS"
    assert event.data == b"WORDS"
