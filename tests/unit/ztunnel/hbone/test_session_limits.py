"""Streams and windows at their limits, drains and the ends of a session."""

import pytest

from tests.unit.ztunnel.hbone.pair import Pair, data_of, frames_of, server_ready
from tests.unit.ztunnel.hbone.session_rig import SMALL
from ztunnel.hbone.errors import CannotOpen, ErrorCode, OpenRefusal
from ztunnel.hbone.events import (
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.frames import GOAWAY, PREFACE, RST_STREAM, pack_settings
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role, SessionSettings
from ztunnel.hbone.states import CLOSED, OPEN


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


def test_memory_of_finished_streams_is_not_kept() -> None:
    pair = Pair()
    for number in range(1_500):
        near, far = pair.tunnel()
        if number % 2:
            pair.client.reset(near, ErrorCode.CANCEL)
        else:
            pair.client.end(near)
            pair.server.end(far)
        pair.to_server()
        pair.to_client()
    assert pair.client.idle
    assert pair.server.idle
    assert len(pair.client.reset_ids) + len(pair.client.reset_ids_older) <= 1_024
    assert not pair.client.closed
    assert not pair.server.closed


def test_smaller_windows_are_kept_once_the_peer_has_used_what_it_had() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    for _ in range(20):
        room = pair.client.room(near)
        assert room > 0, "whoever has taken everything lets the peer go on"
        pair.client.send_data(near, bytes(room))
        assert len(data_of(pair.to_server())) == room
        pair.server.consumed(far, room)
        assert far.receive_window + far.credit == 1_000
        pair.to_client()
    assert pair.client.room(near) == 200


def test_what_a_slow_app_holds_counts_against_the_smaller_window() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    pair.server.consumed(far, 850)
    pair.to_client()
    assert pair.client.room(near) == 0, "150 are held: 50 more are not worth a frame yet"
    pair.server.consumed(far, 50)
    pair.to_client()
    assert pair.client.room(near) == 100


def test_large_windows_come_back_with_the_next_bytes() -> None:
    pair = Pair(server_settings=SMALL)
    near, far = pair.tunnel()
    pair.server.use_windows(200)
    pair.client.send_data(near, bytes(1_000))
    pair.to_server()
    pair.server.consumed(far, 999)
    pair.server.use_windows(1_000)
    pair.server.consumed(far, 1)
    pair.to_client()
    assert pair.client.room(near) == 1_000
