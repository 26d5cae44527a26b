"""The session's own promises: opening, answering, windows out, windows in, the ends."""

import pytest

from tests.unit.ztunnel.hbone.pair import Pair, data_of, frames_of
from tests.unit.ztunnel.hbone.session_rig import SMALL
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    WindowOpened,
)
from ztunnel.hbone.frames import WINDOW_UPDATE, Setting, pack_settings
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role, SessionSettings
from ztunnel.hbone.states import CLOSED, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE


def test_a_tunnel_carries_bytes_both_ways_and_half_closes() -> None:
    pair = Pair()
    near, far = pair.tunnel([("forwarded", 'for="1.2.3.4:5"')])
    pair.client.send_data(near, b"question")
    pair.client.end(near)
    events = pair.to_server()
    assert data_of(events) == b"question"
    assert events[-1] == StreamEnded(far)
    assert (near.state, far.state) == (HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE)
    pair.server.send_data(far, b"answer", end_stream=True)
    events = pair.to_client()
    assert data_of(events) == b"answer"
    assert events[-1] == StreamEnded(near)
    assert near.state is far.state is CLOSED
    assert pair.client.idle
    assert pair.server.idle


def test_the_server_sees_what_was_asked_and_the_client_the_answer() -> None:
    pair = Pair()
    near = pair.client.request("[2001:db8::1]:80", [("baggage", "a=b")])
    near.owner = "the engine's"
    (request,) = pair.to_server()
    assert isinstance(request, RequestReceived)
    assert request.authority == "[2001:db8::1]:80"
    assert request.headers == [("baggage", "a=b")]
    assert not request.ended
    pair.server.respond(request.stream, 401, [("x", "y")], end_stream=True)
    assert pair.to_client() == [ResponseReceived(near, 401, [("x", "y")], True)]
    assert near.state is HALF_CLOSED_REMOTE
    pair.client.end(near)
    pair.to_server()
    assert pair.client.idle
    assert pair.server.idle


def test_the_last_frame_can_be_made_the_end() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    other, _ = pair.tunnel()
    pair.client.send_data(other, b"before")
    pair.client.send_data(near, b"last words")
    pair.client.end_with_frame(near, 9 + len(b"last words"))
    assert near.state is HALF_CLOSED_LOCAL
    assert [
        (flags, stream, data) for _, flags, stream, data in frames_of(pair.client.outbound)
    ] == [
        (0, other.id, b"before"),
        (1, near.id, b"last words"),
    ]
    pair.client.end_with_frame(near, 9 + len(b"last words"))
    _, data, end = pair.to_server()
    assert isinstance(data, DataReceived)
    assert (data.stream, bytes(data.data), end) == (far, b"last words", StreamEnded(far))
    assert far.ending


def test_frame_data_puts_the_header_in_place() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    buffer = bytearray(9) + bytearray(b"payload and rubbish")
    pair.client.frame_data(near, buffer, 7)
    pair.client.outbound += buffer[:16]
    pair.client.end(near)
    events = pair.to_server()
    assert data_of(events) == b"payload"
    assert events[-1] == StreamEnded(far)


def test_nothing_is_sent_before_the_answer_or_beyond_the_room() -> None:
    pair = Pair(server_settings=SMALL)
    near = pair.client.request("web:80", [])
    (request,) = pair.to_server()
    assert isinstance(request, RequestReceived)
    assert pair.server.room(request.stream) == 0
    with pytest.raises(ValueError):
        pair.server.send_data(request.stream, b"early")
    with pytest.raises(ValueError):
        pair.server.end(request.stream)
    assert pair.client.room(near) == 1_000
    with pytest.raises(ValueError):
        pair.client.send_data(near, bytes(1_001))
    with pytest.raises(ValueError):
        pair.client.frame_data(near, bytearray(2_000), 1_001)
    pair.client.send_data(near, bytes(1_000))
    assert pair.client.room(near) == 0
    pair.client.end(near)
    assert pair.client.room(near) == 0


def test_room_is_bounded_by_frame_stream_and_connection() -> None:
    pair = Pair(server_settings=SessionSettings(max_frame_bytes=20_000))
    near, _ = pair.tunnel()
    assert pair.client.room(near) == 20_000
    near.send_window = 5_000
    assert pair.client.room(near) == 5_000
    pair.client.send_window = 1_000
    assert pair.client.room(near) == 1_000
    near.send_window = -7
    assert pair.client.room(near) == 0


def test_windows_open_again_in_halves_and_only_for_consumed_bytes() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    assert not pair.server.outbound, "receive never re-opens"
    pair.server.consumed(far, 499)
    assert not pair.server.outbound
    pair.server.consumed(far, 1)
    assert frames_of(pair.server.outbound)[0][::2] == (WINDOW_UPDATE, far.id)
    assert pair.to_client() == [WindowOpened(near)]
    assert pair.client.room(near) == 500
    pair.server.consumed(far, 500)
    assert pair.to_client() == [], "it was open already"
    assert pair.client.room(near) == 1_000
    with pytest.raises(ValueError):
        pair.server.consumed(far, 1)


def test_the_connection_window_opens_for_all_streams_at_once() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=70_000))
    near, far = pair.tunnel()
    while room := pair.client.room(near):
        pair.client.send_data(near, bytes(room))
    assert near.send_window > 0 == pair.client.send_window
    pair.to_server()
    pair.server.consumed(far, 70_000)
    assert pair.to_client() == [WindowOpened(None)]


def test_a_reset_gives_unconsumed_bytes_back_to_the_connection() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    for resets in (True, False):
        near, far = pair.tunnel()
        pair.client.send_data(near, bytes(60_000))
        pair.to_server()
        pair.server.consumed(far, 1_000)
        if resets:
            pair.server.reset(far, ErrorCode.CANCEL)
        else:
            pair.client.reset(near, ErrorCode.CANCEL)
            pair.to_server()
        pair.server.consumed(far, 59_000)  # too late: counted already
        pair.to_client()
        assert pair.client.send_window >= 40_000
        assert pair.server.receive_window + pair.server.credit == 100_000


def test_dropping_an_ended_stream_gives_its_bytes_back_once() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(30_000), end_stream=True)
    pair.to_server()
    pair.server.end(far)
    assert far.state is CLOSED
    pair.server.take()
    pair.server.reset(far, ErrorCode.CANCEL)
    pair.server.reset(far, ErrorCode.CANCEL)
    assert not pair.server.outbound
    assert pair.server.receive_window + pair.server.credit == 100_000


def test_no_window_is_announced_to_who_has_ended_or_gone() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(900), end_stream=True)
    pair.to_server()
    pair.server.consumed(far, 900)
    assert not pair.server.outbound
    pair = Pair(server_settings=SessionSettings(65_535, 65_535))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(65_000))
    pair.to_server()
    pair.server.goaway(ErrorCode.INTERNAL_ERROR, drain=False)
    pair.server.take()
    pair.server.consumed(far, 65_000)
    pair.server.reset(far, ErrorCode.CANCEL)
    assert not pair.server.outbound


def test_bytes_of_a_closed_stream_may_be_consumed_later() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=100_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(60_000), end_stream=True)
    pair.to_server()
    pair.server.end(far)
    pair.server.take()
    pair.server.consumed(far, 60_000)
    assert [frame[2] for frame in frames_of(pair.server.outbound)] == [0]


def test_smaller_windows_than_the_default_bind_after_the_acknowledgement() -> None:
    server = Session(Role.SERVER, SMALL)
    server.start()
    client = Session(Role.CLIENT, CLIENT_SETTINGS)
    client.start()
    near = client.request("web:80", [])
    client.send_data(near, bytes(5_000))  # it cannot know the server's 1,000 yet
    events = server.receive(client.take())
    assert data_of(events) == bytes(5_000)
    assert client.receive(server.take())[-1] is not None
    assert near.send_window == 1_000 - 5_000
    server.receive(client.take())
    (stream,) = server.streams.values()
    assert stream.receive_window == near.send_window
    server.consumed(stream, 5_000)
    assert client.receive(server.take()) == [WindowOpened(near)]
    assert client.room(near) == 1_000


def test_new_settings_move_the_windows_of_open_streams() -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    before = near.send_window
    pair.client.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 0)]))
    assert near.send_window == before - (4 << 20)
    events = pair.client.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 10)]))
    assert events[-1] == WindowOpened(near)
