"""SETTINGS, PING, RST_STREAM, WINDOW_UPDATE, GOAWAY, PRIORITY: effects, and floods of them."""

from collections.abc import Callable

import pytest

from tests.unit.ztunnel.hbone.pair import CONNECT, Pair, frames_of, request_frame, server_ready
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    GoAwayReceived,
    PeerSettingsChanged,
    RequestReceived,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.frames import (
    DATA,
    PING,
    PRIORITY,
    SETTINGS,
    Setting,
    pack_frame,
    pack_goaway,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.limits import ALLOWANCE_START, REPLY_BYTES_MAX
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SessionSettings

PING_FRAME = pack_frame(PING, 0, 0, b"12345678")


def test_settings_are_acknowledged_and_told() -> None:
    server = server_ready()
    assert server.receive(pack_settings([(Setting.MAX_FRAME_SIZE, 20_000)])) == [
        PeerSettingsChanged()
    ]
    assert bytes(server.outbound) == pack_frame(SETTINGS, 1, 0)
    assert server.frame_bytes_max == 20_000


def test_our_headers_follow_the_peers_table_size() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    server.receive(pack_settings([(Setting.HEADER_TABLE_SIZE, 0)]))
    server.take()
    server.respond(request.stream, 200, [], end_stream=False)
    assert frames_of(server.outbound)[0][3] == b"\x20\x88"


def test_a_table_emptied_within_one_frame_is_announced_as_empty_then_as_large() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    sizes = [(Setting.HEADER_TABLE_SIZE, 0), (Setting.HEADER_TABLE_SIZE, 4_096)]
    server.receive(pack_settings(sizes) * 5)
    server.take()
    server.respond(request.stream, 200, [], end_stream=False)
    assert frames_of(server.outbound)[0][3] == b"\x20\x3f\xe1\x1f\x88"


def test_a_peer_that_acknowledged_our_smaller_table_must_shrink_its_own() -> None:
    for shrinks in (b"", b"\x20"):
        server = server_ready(SessionSettings(header_table_bytes=0))
        (event,) = server.receive(pack_frame(SETTINGS, 1, 0) + request_frame(1, shrinks + CONNECT))
        assert isinstance(event, RequestReceived if shrinks else ConnectionFailed)


def test_a_window_beyond_the_maximum_by_settings_ends_the_connection() -> None:
    server = server_ready()
    server.receive(request_frame(1) + pack_window_update(1, 0x7FFF_FFFF - 65_535))
    *_, failed = server.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 65_536)]))
    assert isinstance(failed, ConnectionFailed)
    assert failed.code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("increment", "code"),
    [(0, ErrorCode.PROTOCOL_ERROR), (0x7FFF_FFFF, ErrorCode.FLOW_CONTROL_ERROR)],
)
def test_a_bad_window_update_resets_its_stream(increment: int, code: ErrorCode) -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    events = server.receive(pack_window_update(1, increment))
    assert events == [StreamReset(request.stream, code)]
    assert bytes(server.outbound) == pack_rst_stream(1, code)
    assert server.receive(pack_window_update(1, 5)) == [], "it may have been under way"


def test_windows_are_told_only_when_they_open() -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    assert pair.client.receive(pack_window_update(near.id, 1)) == []
    assert pair.client.receive(pack_window_update(0, 1)) == []
    near.send_window = 0
    assert pair.client.receive(pack_window_update(near.id, 1)) == [WindowOpened(near)]
    near.send_window = -5
    assert pair.client.receive(pack_window_update(near.id, 5)) == []


def test_goaway_ends_the_streams_that_the_peer_will_not_serve() -> None:
    pair = Pair()
    first, second = (pair.client.request("web:80", []) for _ in range(2))
    events = pair.client.receive(pack_goaway(first.id, ErrorCode.NO_ERROR, b"bye"))
    assert events == [
        GoAwayReceived(first.id, 0),
        StreamReset(second, ErrorCode.REFUSED_STREAM),
    ]
    assert len(pair.client.streams) == 1
    pair.client.take()
    assert pair.client.receive(pack_frame(DATA, 0, second.id, b"x")) == []
    assert not pair.client.outbound, "it may have been under way"
    server = server_ready()
    server.receive(request_frame(1))
    assert server.receive(pack_goaway(0, 0)) == [GoAwayReceived(0, 0)]
    assert len(server.streams) == 1, "its own streams go on"


def test_priority_is_tolerated() -> None:
    server = server_ready()
    assert server.receive(pack_frame(PRIORITY, 0, 9, bytes(5))) == []


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: PING_FRAME,
    "PING answers": lambda _: pack_frame(PING, 1, 0, bytes(8)),
    "SETTINGS": lambda _: pack_settings([]),
    "SETTINGS answers": lambda _: pack_frame(SETTINGS, 1, 0),
    "PRIORITY": lambda _: pack_frame(PRIORITY, 0, 3, bytes(5)),
    "empty DATA": lambda _: pack_frame(DATA, 0, 1),
    "padded empty DATA": lambda _: pack_frame(DATA, 8, 1, b"\x00"),
    "WINDOW_UPDATE": lambda _: pack_window_update(0, 1),
    "unknown frames": lambda _: pack_frame(99, 0, 0),
    "GOAWAY": lambda _: pack_goaway(0, 0),
    "rapid reset": lambda n: request_frame(2 * n + 3) + pack_rst_stream(2 * n + 3, 8),
    "RST of a closed stream": lambda n: request_frame(3) * (n == 0) + pack_rst_stream(3, 8),
    "malformed requests": lambda n: request_frame(2 * n + 3, b"\x84"),
    "made to reset": lambda n: request_frame(2 * n + 3) + pack_window_update(2 * n + 3, 0),
    "refused": lambda n: request_frame(2 * n + 3),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(name: str) -> None:
    server = server_ready()
    server.receive(request_frame(1))
    flood = b"".join(FLOODS[name](number) for number in range(2 * ALLOWANCE_START))
    failed = None
    for start in range(0, len(flood), 16_384):
        events = server.receive(flood[start : start + 16_384])
        server.take()
        if events and isinstance(events[-1], ConnectionFailed):
            failed = events[-1]
    assert failed is not None
    assert failed.code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_ping_each_read_for_ever_is_no_flood() -> None:
    server = server_ready()
    for _ in range(3 * ALLOWANCE_START):
        assert server.receive(PING_FRAME) == []
        server.take()
    assert not server.closed


def test_a_ping_for_every_small_message_is_no_flood() -> None:
    server = server_ready(SessionSettings(connection_window_bytes=100_000))
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    burst = (pack_frame(DATA, 0, 1, bytes(32)) + PING_FRAME) * 3_000
    for _ in range(6):  # far beyond the first window
        events = server.receive(burst)
        assert len(events) == 3_000
        server.consumed(request.stream, 3_000 * 32)
        server.take()


def test_a_window_update_for_every_small_message_is_no_flood() -> None:
    pair = Pair()
    near, _ = pair.tunnel()
    updates = pack_window_update(0, 32) + pack_window_update(near.id, 32)
    for _ in range(3 * ALLOWANCE_START // 1_000):
        for _ in range(1_000):
            pair.client.send_data(near, bytes(32))
        assert pair.client.receive(updates * 1_000) == []
        pair.client.take()


def test_many_short_answered_tunnels_that_end_with_a_reset_are_no_flood() -> None:
    server = server_ready()
    for number in range(2 * ALLOWANCE_START):
        stream_id = 2 * number + 1
        (request,) = server.receive(request_frame(stream_id))
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 200, [], end_stream=False)
        assert len(server.receive(pack_rst_stream(stream_id, 8))) == 1
        server.take()


def test_a_server_that_refuses_everything_in_large_batches_is_no_flood() -> None:
    pair = Pair()
    for _ in range(100):
        near = [pair.client.request("web:80", []) for _ in range(100)]
        answers = b"".join(request_frame(s.id, b"\x88", 5) + pack_rst_stream(s.id, 0) for s in near)
        assert len(pair.client.receive(answers)) == 200
        pair.client.take()


def test_a_peer_that_does_not_read_its_answers_is_cut_off() -> None:
    server = server_ready()
    for _ in range(20_000):
        events = server.receive(PING_FRAME)
        if events:
            break
    assert isinstance(events[-1], ConnectionFailed)
    assert len(server.outbound) < REPLY_BYTES_MAX + 100


def drained_without_take(server: Session) -> None:
    frames_of(server.outbound)
    server.outbound.clear()


def test_an_engine_that_drains_without_take_is_not_mistaken_for_such_a_peer() -> None:
    server = server_ready()
    for _ in range(20_000):
        assert server.receive(PING_FRAME) == []
        drained_without_take(server)
