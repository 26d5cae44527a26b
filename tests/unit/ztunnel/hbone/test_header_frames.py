"""Requests, responses, trailers, and blocks in pieces."""

import pytest

from tests.unit.ztunnel.hbone.pair import (
    CONNECT,
    Pair,
    field,
    frames_of,
    request_frame,
    server_ready,
)
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    RST_STREAM,
    pack_frame,
    pack_rst_stream,
)
from ztunnel.hbone.settings import SessionSettings
from ztunnel.hbone.states import CLOSED

GET = (
    field(b":method", b"GET")
    + field(b":scheme", b"https")
    + field(b":path", b"/")
    + field(b":authority", b"web")
)


def test_padding_and_priority_are_taken_off() -> None:
    payload = b"\x03" + bytes(5) + CONNECT + bytes(3)
    frame = pack_frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, payload)
    (request,) = server_ready().receive(frame)
    assert isinstance(request, RequestReceived)
    assert request.authority == "10.0.0.1:80"


def test_a_block_may_come_in_pieces() -> None:
    server = server_ready()
    data = (
        pack_frame(HEADERS, END_STREAM, 1, CONNECT[:5])
        + pack_frame(CONTINUATION, 0, 1, CONNECT[5:9])
        + pack_frame(CONTINUATION, END_HEADERS, 1, CONNECT[9:])
    )
    (request,) = server.receive(data)
    assert isinstance(request, RequestReceived)
    assert request.ended


def test_pieces_are_limited_in_number_and_in_sum() -> None:
    empty = pack_frame(CONTINUATION, 0, 1)
    large = pack_frame(CONTINUATION, 0, 1, bytes(16_000))
    for flood in (empty * 17, large * 5):
        server = server_ready()
        *_, failed = server.receive(pack_frame(HEADERS, 0, 1, CONNECT) + flood)
        assert isinstance(failed, ConnectionFailed)
        assert failed.code == ErrorCode.ENHANCE_YOUR_CALM


def test_pieces_are_counted_per_block() -> None:
    server = server_ready()
    for stream_id in (1, 3, 5):
        pieces = pack_frame(CONTINUATION, 0, stream_id) * 10
        last = pack_frame(CONTINUATION, END_HEADERS, stream_id)
        events = server.receive(pack_frame(HEADERS, 0, stream_id, CONNECT) + pieces + last)
        assert [event.__class__ for event in events] == [RequestReceived]


def test_other_requests_reach_the_engine() -> None:
    (request,) = server_ready().receive(request_frame(1, GET))
    assert isinstance(request, RequestReceived)
    assert request.method == "GET"


@pytest.mark.parametrize(
    "block",
    [
        CONNECT + field(b":path", b"/"),
        CONNECT + field(b"Upper", b"x"),
        CONNECT + field(b"connection", b"close"),
        field(b":method", b"CONNECT"),
        field(b"a", b"b") + CONNECT,
    ],
)
def test_a_malformed_request_is_reset_and_the_next_one_served(block: bytes) -> None:
    server = server_ready()
    events = server.receive(request_frame(1, block) + request_frame(3))
    assert [event.__class__ for event in events] == [RequestReceived]
    assert bytes(server.outbound) == pack_rst_stream(1, ErrorCode.PROTOCOL_ERROR)
    assert len(server.streams) == 1


def test_streams_beyond_the_limit_are_refused() -> None:
    server = server_ready(SessionSettings(max_concurrent_streams=1))
    events = server.receive(request_frame(1) + request_frame(3))
    assert len(events) == 1
    assert bytes(server.outbound) == pack_rst_stream(3, ErrorCode.REFUSED_STREAM)
    assert server.receive(pack_frame(0, 0, 3, b"under way")) == []
    assert not server.closed


def test_ids_go_up() -> None:
    server = server_ready()
    server.receive(request_frame(5))
    *_, failed = server.receive(request_frame(3))
    assert isinstance(failed, ConnectionFailed)


def test_headers_after_our_reset_are_ignored_and_still_decoded() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    server.reset(request.stream, ErrorCode.CANCEL)
    indexed = b"\x40\x01a\x01b"  # enters the table
    assert server.receive(request_frame(1, indexed, END_HEADERS | END_STREAM)) == []
    (request,) = server.receive(request_frame(3, CONNECT + b"\xbe"))
    assert isinstance(request, RequestReceived)
    assert request.headers == [("a", "b")]


def test_trailers_end_the_stream_and_are_dropped() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    trailers = field(b"grpc-status", b"0")
    assert pair.server.receive(request_frame(far.id, trailers, 5)) == [StreamEnded(far)]
    assert pair.client.receive(request_frame(near.id, trailers, 5)) == [StreamEnded(near)]


@pytest.mark.parametrize(("block", "flags"), [(field(b"a", b"b"), 4), (field(b":path", b"/"), 5)])
def test_bad_trailers_reset_the_stream(block: bytes, flags: int) -> None:
    pair = Pair()
    near, far = pair.tunnel()
    for session, stream in ((pair.server, far), (pair.client, near)):
        events = session.receive(request_frame(stream.id, block, flags))
        assert events == [StreamReset(stream, ErrorCode.PROTOCOL_ERROR)]


def test_headers_after_the_end_reset_the_stream() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1, flags=5))
    assert isinstance(request, RequestReceived)
    events = server.receive(request_frame(1, flags=5))
    assert events == [StreamReset(request.stream, ErrorCode.STREAM_CLOSED)]


def test_interim_responses_are_skipped() -> None:
    pair = Pair()
    near = pair.client.request("web:80", [])
    for interim in (b"100", b"103"):
        assert pair.client.receive(request_frame(near.id, field(b":status", interim))) == []
    events = pair.client.receive(request_frame(near.id, b"\x88"))
    assert events == [ResponseReceived(near, 200, [], False)]


@pytest.mark.parametrize(
    ("block", "flags"), [(b"", 4), (field(b":status", b"xx"), 4), (field(b":status", b"100"), 5)]
)
def test_a_malformed_response_resets_the_stream(block: bytes, flags: int) -> None:
    pair = Pair()
    near = pair.client.request("web:80", [])
    pair.client.take()
    events = pair.client.receive(request_frame(near.id, block, flags))
    assert events == [StreamReset(near, ErrorCode.PROTOCOL_ERROR)]
    assert frames_of(pair.client.outbound)[0][0] == RST_STREAM


def test_a_refusal_that_ends_both_halves_closes_the_stream() -> None:
    pair = Pair()
    near = pair.client.request("web:80", [])
    pair.client.end(near)
    events = pair.client.receive(request_frame(near.id, field(b":status", b"503"), 5))
    assert events == [ResponseReceived(near, 503, [], True)]
    assert near.state is CLOSED
    assert pair.client.idle


def test_no_server_opens_streams_towards_us() -> None:
    for stream_id in (2, 99):
        pair = Pair()
        *_, failed = pair.client.receive(request_frame(stream_id, b"\x88"))
        assert isinstance(failed, ConnectionFailed)
        assert failed.code == ErrorCode.PROTOCOL_ERROR
