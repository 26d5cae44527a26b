"""The frame loop: any bytes, any split; DATA in all its forms."""

from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import (
    CONNECT,
    Pair,
    data_of,
    field,
    frames_of,
    request_frame,
    server_ready,
)
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    pack_frame,
    pack_goaway,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.stream import Stream

HELLO = PREFACE + pack_settings([])


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


def test_a_frame_of_a_mebibyte_is_handed_on_as_it_comes() -> None:
    server = server_ready()
    server.receive(request_frame(1))
    payload = bytes(range(256)) * 4_096
    frame = pack_frame(DATA, END_STREAM, 1, payload)
    got = bytearray()
    for start in range(0, len(frame), 100_000):
        piece = frame[start : start + 100_000]
        events = server.receive(piece)
        assert isinstance(events[0], DataReceived)
        assert events[0].data.obj is piece, "a view, not a copy"
        got += data_of(events)
    assert got == payload
    assert isinstance(events[-1], StreamEnded)


def test_a_reset_in_the_middle_of_a_frame_drops_the_rest_and_frees_its_window() -> None:
    server = server_ready(SessionSettings(connection_window_bytes=100_000))
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    frame = pack_frame(DATA, END_STREAM, 1, bytes(60_000))
    server.receive(frame[:1_000])
    server.reset(request.stream, ErrorCode.CANCEL)
    assert server.receive(frame[1_000:] + request_frame(3))[0].__class__ is RequestReceived
    assert server.receive_window == 100_000
    kinds = [kind for kind, *_ in frames_of(server.outbound)]
    assert kinds == [RST_STREAM, WINDOW_UPDATE]


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


def test_more_than_the_streams_window_resets_the_stream() -> None:
    server = server_ready(SessionSettings(initial_window_bytes=100_000))
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    events = server.receive(pack_frame(DATA, 0, 1, bytes(100_000)) + pack_frame(DATA, 0, 1, b"x"))
    assert isinstance(events[0], DataReceived)
    assert events[1:] == [StreamReset(request.stream, ErrorCode.FLOW_CONTROL_ERROR)]
    assert server.credit + server.receive_window == server.receive_granted == 16 << 20


def test_more_than_the_connections_window_ends_the_connection() -> None:
    server = server_ready(SessionSettings(connection_window_bytes=65_535))
    *_, failed = server.receive(request_frame(1) + pack_frame(DATA, 0, 1, bytes(65_536)))
    assert isinstance(failed, ConnectionFailed)
    assert failed.code == ErrorCode.FLOW_CONTROL_ERROR


def test_padding_is_counted_and_given_back_at_once() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    server.receive(pack_frame(DATA, PADDED, 1, b"\x09data" + bytes(9)))
    stream = request.stream
    assert stream.receive_window == (4 << 20) - 14
    assert (stream.credit, server.credit) == (10, 10)
    server.consumed(stream, 4)
    with pytest.raises(ValueError):
        server.consumed(stream, 1)


def test_data_after_the_end_resets_the_stream() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1, flags=5))
    assert isinstance(request, RequestReceived)
    assert request.ended
    events = server.receive(pack_frame(DATA, 0, 1, b"x"))
    assert events == [StreamReset(request.stream, ErrorCode.STREAM_CLOSED)]


def test_data_before_the_response_resets_the_stream() -> None:
    pair = Pair()
    near = pair.client.request("web:80", [])
    events = pair.client.receive(pack_frame(DATA, 0, near.id, b"x"))
    assert events == [StreamReset(near, ErrorCode.PROTOCOL_ERROR)]


def test_data_under_way_to_a_reset_stream_is_dropped_and_its_window_given_back() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=70_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(60_000))
    pair.server.reset(far, ErrorCode.CANCEL)
    assert pair.to_server() == []
    assert pair.to_client() == [StreamReset(near, ErrorCode.CANCEL)]
    assert pair.client.send_window == 70_000


def test_frames_of_unknown_type_and_fields_of_unknown_meaning_are_skipped() -> None:
    server = server_ready()
    block = CONNECT + field(b"x", b"y")
    events = server.receive(pack_frame(0xAB, 0xFF, 7, bytes(500)) + request_frame(1, block))
    assert isinstance(events[0], RequestReceived)


def test_every_kind_of_buffer_is_taken() -> None:
    for kind in (bytes, bytearray, memoryview):
        assert server_ready().receive(kind(request_frame(1)))


def test_direct_delivery_hands_out_neighbours_together_and_makes_no_events() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    other, another = pair.tunnel()
    for stream, text in ((near, b"one"), (near, b"two"), (other, b"three"), (near, b"four")):
        pair.client.send_data(stream, text)
    got: list[tuple[int, list[bytes]]] = []
    events = pair.server.receive(
        bytes(pair.client.take()),
        lambda stream, piece, run: got.append((stream.id, [bytes(x) for x in run or [piece]])),
    )
    assert events == []
    assert got == [(far.id, [b"one", b"two"]), (another.id, [b"three"]), (far.id, [b"four"])]


@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_direct_delivery_keeps_the_order_of_events(cuts: list[int], ends: bool) -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    pair.client.send_data(near, b"a" * 100)
    pair.client.ping(b"12345678")
    pair.client.request("10.0.0.2:80", [])
    pair.client.send_data(near, b"b" * 50, end_stream=ends)
    data = bytes(pair.client.take())
    seen: list[Event] = []

    def deliver(stream: Stream, piece: memoryview, run: list[memoryview] | None) -> None:
        seen.extend([DataReceived(stream, each) for each in run or [piece]])

    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(bounds):
        seen += pair.server.receive(data[start:end], deliver)
    twin = Pair()
    twin.tunnel()
    assert plain(seen) == plain(twin.server.receive(data))


def test_a_stream_that_its_owner_resets_in_the_middle_of_a_read_gets_nothing_more() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    other, another = pair.tunnel()
    pair.client.send_data(near, b"first")
    pair.client.send_data(other, b"between")
    pair.client.send_data(near, b"last", end_stream=True)
    got: list[tuple[int, bytes]] = []

    def deliver(stream: Stream, piece: memoryview, _run: list[memoryview] | None) -> None:
        got.append((stream.id, bytes(piece)))
        pair.server.reset(stream, ErrorCode.CANCEL)

    assert pair.server.receive(bytes(pair.client.take()), deliver) == []
    assert got == [(far.id, b"first"), (another.id, b"between")]
