"""The frame loop: any bytes in any split, and what ends a connection."""

from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import (
    CONNECT,
    field,
    frames_of,
    plain,
    request_frame,
    server_ready,
)
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
)
from ztunnel.hbone.frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    pack_frame,
    pack_goaway,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role

HELLO = PREFACE + pack_settings([])


def fed(data: bytes, cuts: list[int]) -> tuple[list[object], bytes]:
    server = Session(Role.SERVER, SERVER_SETTINGS)
    events: list[Event] = []
    start = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        for event in server.receive(data[start:cut]):
            if isinstance(event, DataReceived):
                event.data = memoryview(bytes(event.data))
            events.append(event)
        start = cut
    assert not any(isinstance(event, ConnectionFailed) for event in events[:-1])
    return plain(events), bytes(server.outbound)


def some_frames() -> st.SearchStrategy[bytes]:
    ids = st.sampled_from([0, 1, 2, 3, 5, 0x8000_0001])
    raw = st.builds(
        pack_frame, st.integers(0, 12), st.integers(0, 255), ids, st.binary(max_size=40)
    )
    return st.one_of(
        raw,
        st.builds(request_frame, st.sampled_from([1, 3, 5]), flags=st.sampled_from([4, 5, 0])),
        st.builds(pack_frame, st.just(DATA), st.sampled_from([0, 0, 1, 8]), ids, st.binary()),
        st.builds(pack_frame, st.just(9), st.sampled_from([0, 4]), ids, st.just(b"")),
        st.builds(pack_window_update, ids, st.integers(0, 2**31 - 1)),
        st.builds(pack_rst_stream, ids, st.integers(0, 20)),
        st.just(pack_settings([(4, 100)])),
        st.just(pack_goaway(0, 0)),
        st.binary(max_size=30),
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(some_frames(), max_size=12).map(b"".join), st.lists(st.integers(0), max_size=20))
def test_any_bytes_in_any_split_give_the_same_events(data: bytes, cuts: list[int]) -> None:
    assert fed(HELLO + data, cuts) == fed(HELLO + data, [])


def test_byte_by_byte_is_no_different() -> None:
    data = (
        HELLO
        + request_frame(1)
        + pack_frame(DATA, 0, 1, b"one")
        + pack_frame(DATA, PADDED, 1, b"\x04two" + bytes(4))
        + pack_frame(0x77, 0xFF, 1, b"a frame of the future")
        + pack_frame(DATA, END_STREAM | PADDED, 1, b"\x00three")
    )
    events, outbound = fed(data, list(range(len(data))))
    assert (events, outbound) == fed(data, [])
    assert events[2:] == [
        (1, b"onetwothree"),
        "StreamEnded(stream=Stream(1, local waiting, remote ended))",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        pack_frame(DATA, 0, 0, b"x"),
        pack_frame(DATA, 0, 3, b"x"),
        pack_frame(DATA, 0, 2, b"x"),
        pack_frame(DATA, PADDED, 1, b""),
        pack_frame(DATA, PADDED, 1, b"\x01"),
        pack_frame(DATA, PADDED, 1, b"\x05abcd"),
        pack_frame(HEADERS, 4, 0, CONNECT),
        pack_frame(HEADERS, 4, 2, CONNECT),
        pack_frame(HEADERS, 4 | PADDED, 3, b"\xff" + CONNECT),
        pack_frame(HEADERS, 4 | PADDED, 3, b""),
        pack_frame(HEADERS, 4 | 0x20, 3, bytes(4)),
        pack_frame(HEADERS, 0, 3, CONNECT) + pack_frame(DATA, 0, 1, b"x"),
        pack_frame(HEADERS, 0, 3, CONNECT) + pack_frame(9, 4, 5, b""),
        pack_frame(HEADERS, 4, 3, b"\xff\xff\xff"),
        pack_frame(9, 4, 1, b""),
        pack_frame(9, 4, 0, b""),
        pack_frame(2, 0, 0, bytes(5)),
        pack_frame(2, 0, 1, bytes(4)),
        pack_frame(3, 0, 0, bytes(4)),
        pack_frame(3, 0, 3, bytes(4)),
        pack_frame(3, 0, 1, bytes(5)),
        pack_frame(4, 0, 1, b""),
        pack_frame(4, 0, 0, bytes(5)),
        pack_frame(4, 1, 0, bytes(6)),
        pack_frame(5, 4, 1, bytes(4)),
        pack_frame(6, 0, 1, bytes(8)),
        pack_frame(6, 0, 0, bytes(7)),
        pack_frame(7, 0, 1, bytes(8)),
        pack_frame(7, 0, 0, bytes(7)),
        pack_frame(8, 0, 0, bytes(4)),
        pack_frame(8, 0, 3, b"\x00\x00\x00\x01"),
        pack_frame(8, 0, 1, bytes(3)),
        pack_window_update(0, 0x7FFF_FFFF),
        pack("!IBI", ((1 << 20) + 1) << 8, 0, 1),
        pack("!IBI", (1 << 20) << 8 | 1, 4, 3),
        pack("!IBI", 16_385 << 8 | 7, 0, 0),
    ],
)
def test_what_breaks_the_rules_of_the_connection_ends_it(bad: bytes) -> None:
    server = server_ready()
    server.receive(request_frame(1))
    *_, failed = server.receive(bad)
    assert isinstance(failed, ConnectionFailed)
    kind, _, _, payload = frames_of(server.outbound)[-1]
    assert kind == GOAWAY
    assert payload[:8] == pack("!II", 1, failed.code)
    assert server.closed
    assert server.receive(request_frame(5)) == []


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03"])
def test_who_does_not_speak_http2_is_told_so(first: bytes) -> None:
    server = Session(Role.SERVER, SERVER_SETTINGS)
    server.start()
    *_, failed = server.receive(first)
    assert failed == ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 client")


def test_the_first_frame_is_settings() -> None:
    for frame in (request_frame(1), pack_frame(4, 1, 0), pack_frame(DATA, 0, 1, b"x")):
        server = Session(Role.SERVER, SERVER_SETTINGS)
        *_, failed = server.receive(PREFACE + frame)
        assert isinstance(failed, ConnectionFailed)
        assert failed.code == ErrorCode.PROTOCOL_ERROR


def test_frames_of_unknown_type_and_fields_of_unknown_meaning_are_skipped() -> None:
    server = server_ready()
    block = CONNECT + field(b"x", b"y")
    events = server.receive(pack_frame(0xAB, 0xFF, 7, bytes(500)) + request_frame(1, block))
    assert isinstance(events[0], RequestReceived)


def test_every_kind_of_buffer_is_taken() -> None:
    for kind in (bytes, bytearray, memoryview):
        assert server_ready().receive(kind(request_frame(1)))
