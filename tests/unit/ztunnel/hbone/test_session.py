"""The session's own promises: opening, answering, sending within windows, and the ends."""

import pytest

from tests.unit.ztunnel.hbone.pair import SMALL, Pair, data_of, frames_of, server_ready
from ztunnel.hbone.errors import CannotOpen, ErrorCode, OpenRefusal
from ztunnel.hbone.events import (
    DataReceived,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.frames import GOAWAY, PREFACE, RST_STREAM, Setting, pack_settings
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role, SessionSettings
from ztunnel.hbone.states import CLOSED, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, OPEN


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


def test_new_settings_move_the_windows_of_open_streams() -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    before = near.send_window
    pair.client.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 0)]))
    assert near.send_window == before - (4 << 20)
    events = pair.client.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 10)]))
    assert events[-1] == WindowOpened(near)


def test_streams_are_limited_by_the_peer() -> None:
    pair = Pair(server_settings=SessionSettings(max_concurrent_streams=2))
    first = pair.client.request("web:80", [])
    pair.client.request("web:80", [])
    assert not pair.client.can_open
    with pytest.raises(CannotOpen) as cannot:
        pair.client.request("web:80", [])
    assert cannot.value.refusal is OpenRefusal.STREAMS_IN_USE
    pair.client.reset(first, ErrorCode.CANCEL)
    assert pair.client.can_open
    assert len(pair.client.streams) == 1


def test_a_hundred_streams_before_the_peers_settings() -> None:
    client = Session(Role.CLIENT, CLIENT_SETTINGS)
    client.start()
    for _ in range(100):
        client.request("web:80", [])
    assert not client.can_open
    client.receive(pack_settings([]))
    assert client.can_open


def test_ids_run_out() -> None:
    pair = Pair()
    pair.client.next_id = 0x7FFF_FFFF
    pair.client.request("web:80", [])
    with pytest.raises(CannotOpen) as cannot:
        pair.client.request("web:80", [])
    assert cannot.value.refusal is OpenRefusal.IDS_EXHAUSTED


def test_a_drain_takes_streams_until_it_is_finished_and_ends_none() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    late = pair.client.request("late:80", [])
    pair.server.goaway(ErrorCode.NO_ERROR, drain=True)
    assert pair.to_client() == [GoAwayReceived(0x7FFF_FFFF, 0)]
    assert pair.client.draining
    assert not pair.client.can_open
    assert isinstance(pair.to_server()[0], RequestReceived), "it was under way"
    pair.server.finish_goaway()
    pair.server.finish_goaway()
    assert pair.to_client() == [GoAwayReceived(late.id, 0)]
    pair.server.send_data(far, b"still here", end_stream=True)
    assert data_of(pair.to_client()) == b"still here"
    pair.client.send_data(near, b"here too", end_stream=True)
    assert data_of(pair.to_server()) == b"here too"
    assert not pair.server.idle
    pair.client.reset(late, ErrorCode.CANCEL)
    pair.to_server()
    assert pair.server.idle
    assert pair.server.draining
    assert not pair.server.closed


def test_a_clients_goaway_is_above_its_own_streams() -> None:
    """Servers with h2 before March 2026 reset every stream above the number in it."""
    pair = Pair()
    near, far = pair.tunnel()
    pair.client.goaway(ErrorCode.NO_ERROR, drain=True)
    pair.client.finish_goaway()
    assert not pair.client.can_open
    assert pair.to_server() == [GoAwayReceived(0x7FFF_FFFE, 0)]
    pair.server.send_data(far, b"still here", end_stream=True)
    assert data_of(pair.to_client()) == b"still here"
    pair.client.end(near)
    assert pair.to_server() == [StreamEnded(far)]


def test_streams_beyond_the_last_one_are_refused() -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    late = pair.client.request("late:80", [])
    pair.client.send_data(late, b"early bytes")
    pair.server.goaway(ErrorCode.NO_ERROR, drain=False)
    under_way = bytes(pair.client.take())
    assert pair.to_client() == [
        GoAwayReceived(near.id, 0),
        StreamReset(late, ErrorCode.REFUSED_STREAM),
    ]
    assert late.state is CLOSED
    assert near.state is OPEN
    assert pair.server.receive(under_way) == []
    assert not pair.server.closed
    assert [frame[0] for frame in frames_of(pair.server.outbound)] == [RST_STREAM]


def test_an_error_goaway_is_the_end() -> None:
    pair = Pair()
    near, far = pair.tunnel()
    pair.server.goaway(ErrorCode.ENHANCE_YOUR_CALM, drain=False)
    assert pair.server.closed
    assert pair.server.room(far) == 0
    pair.server.reset(far, ErrorCode.CANCEL)
    pair.server.respond(far, 200, [], end_stream=False)
    pair.server.end(far)
    pair.server.consumed(far, 0)
    pair.server.ping(bytes(8))
    assert [frame[0] for frame in frames_of(pair.server.outbound)] == [GOAWAY]
    pair.client.send_data(near, b"x")
    assert pair.to_server() == []


def test_pings_are_answered_and_answers_reported() -> None:
    pair = Pair()
    pair.client.ping(b"12345678")
    assert pair.to_server() == []
    assert pair.to_client() == [PingAcknowledged(b"12345678")]
    with pytest.raises(ValueError):
        pair.client.ping(b"short")


def test_commands_on_a_stream_that_was_reset_meanwhile_do_nothing() -> None:
    pair = Pair()
    near = pair.client.request("web:80", [])
    pair.client.reset(near, ErrorCode.CANCEL)
    request, reset = pair.to_server()
    assert isinstance(request, RequestReceived)
    assert reset == StreamReset(request.stream, ErrorCode.CANCEL)
    pair.server.respond(request.stream, 200, [], end_stream=False)
    pair.server.end(request.stream)
    pair.server.reset(request.stream, ErrorCode.CANCEL)
    assert not pair.server.outbound
    assert pair.server.room(request.stream) == 0


def test_a_second_answer_is_a_bug_of_ours() -> None:
    pair = Pair()
    _, far = pair.tunnel()
    with pytest.raises(ValueError):
        pair.server.respond(far, 200, [], end_stream=False)


def test_large_header_lists_are_split_for_the_peer() -> None:
    pair = Pair()
    pair.client.frame_bytes_max = 16_384
    headers = [(f"h{number}", "v" * 1_000) for number in range(40)]
    pair.client.request("web:80", headers)
    assert len(frames_of(pair.client.outbound)) > 1
    (request,) = pair.to_server()
    assert isinstance(request, RequestReceived)
    assert request.headers == headers


def test_the_client_speaks_first_and_the_server_announces_its_window() -> None:
    client = Session(Role.CLIENT, CLIENT_SETTINGS)
    client.start()
    assert client.outbound.startswith(PREFACE)
    kinds = [frame[0] for frame in frames_of(client.outbound[len(PREFACE) :])]
    assert kinds == [4, 8]
    assert server_ready().receive_window == 16 << 20
