"""Known ways to wear an HTTP/2 server out: each meets its bound, and honest long lives never do."""

from collections.abc import Callable

import pytest

from tests.unit.ztunnel.hbone.pair import (
    CONNECT,
    field,
    frames_of,
    request_frame,
    server_ready,
)
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import ConnectionFailed, DataReceived, RequestReceived
from ztunnel.hbone.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    Setting,
    pack_frame,
    pack_rst_stream,
    pack_settings,
    pack_window_update,
)
from ztunnel.hbone.limits import (
    ALLOWANCE_START,
    FIELDS_PER_CREDIT,
    REPLY_BYTES_MAX,
    RESET_COST,
    SETTINGS_COST,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SessionSettings

SMALL_FIELD = b"\x00\x01a\x00"  # four bytes on the wire, 33 in a header list


def is_end(events: list[object], code: ErrorCode = ErrorCode.ENHANCE_YOUR_CALM) -> bool:
    return bool(events) and isinstance(events[-1], ConnectionFailed) and events[-1].code == code


def after_bulk(mebibytes: int) -> Session:
    """A server that has received much on one tunnel: its peer has earned all it can."""
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    server.respond(request.stream, 200, [], end_stream=False)
    frame = pack_frame(DATA, 0, 1, bytes(1 << 20))
    for _ in range(mebibytes):
        assert isinstance(server.receive(frame)[0], DataReceived)
        server.consumed(request.stream, 1 << 20)
        server.take()
    server.receive(pack_window_update(0, 1))  # what was earned is credited with the next odd frame
    return server


def rapid_resets(first: int, count: int) -> bytes:
    ids = range(first, first + 2 * count, 2)
    return b"".join(request_frame(each) + pack_rst_stream(each, 8) for each in ids)


def test_bulk_data_does_not_pay_for_rapid_resets() -> None:
    server = after_bulk(40)
    allowed = ALLOWANCE_START // RESET_COST
    events = server.receive(rapid_resets(3, allowed + 10))
    assert is_end(list(events))
    assert sum(isinstance(event, RequestReceived) for event in events) <= allowed + 2


def test_bulk_data_does_not_pay_for_settings_that_open_and_close_every_window() -> None:
    server = after_bulk(40)
    for stream_id in range(3, 400, 2):
        server.receive(request_frame(stream_id))
    toggle = b"".join(pack_settings([(Setting.INITIAL_WINDOW_SIZE, size)]) for size in (0, 1))
    events = server.receive(toggle * ALLOWANCE_START)
    assert is_end(list(events))
    assert len(events) < (ALLOWANCE_START // SETTINGS_COST + 2) * 200


PROVOCATIONS: dict[str, Callable[[int], bytes]] = {
    "a window update of nothing": lambda n: request_frame(n) + pack_window_update(n, 0),
    "a window beyond 2^31 - 1": lambda n: request_frame(n) + pack_window_update(n, 0x7FFF_FFFF),
    "data after the end": lambda n: request_frame(n, flags=5) + pack_frame(DATA, 0, n, b"x"),
    "headers after the end": lambda n: request_frame(n, flags=5) + request_frame(n, flags=5),
    "trailers that end nothing": lambda n: request_frame(n) + request_frame(n, field(b"a", b"b")),
    "a malformed request": lambda n: request_frame(n, field(b":method", b"CONNECT")),
}


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_resets_that_a_client_provokes_count_like_its_own(name: str) -> None:
    server = server_ready()
    allowed = ALLOWANCE_START // RESET_COST
    ids = range(1, 2 * allowed + 21, 2)
    events = server.receive(b"".join(PROVOCATIONS[name](each) for each in ids))
    assert is_end(list(events))
    kinds = [kind for kind, *_ in frames_of(server.outbound)]
    assert allowed <= kinds.count(RST_STREAM) <= allowed + 2
    assert len(server.reset_ids) + len(server.reset_ids_older) <= 1_024


def test_a_header_block_without_end_is_bounded_also_when_it_trickles() -> None:
    server = server_ready()
    server.receive(pack_frame(HEADERS, 0, 1, CONNECT))
    for number in range(17):
        events = server.receive(pack_frame(CONTINUATION, 0, 1, b""))
        assert is_end(list(events)) == (number == 16)


def test_a_header_list_of_64_kib_is_served_and_a_larger_one_is_not() -> None:
    large = [field(b"a", b"x" * 120)] * 390  # 153 each in the list: 60 KB
    block = CONNECT + b"".join(large)
    server = server_ready()
    (request,) = server.receive(
        pack_frame(HEADERS, 0, 1, block[:16_384])
        + pack_frame(CONTINUATION, 0, 1, block[16_384:32_768])
        + pack_frame(CONTINUATION, END_HEADERS, 1, block[32_768:])
    )
    assert isinstance(request, RequestReceived)
    assert len(request.headers) == 390
    assert is_end(list(server.receive(request_frame(3, block + large[0] * 50))))


def test_many_large_header_lists_end_the_connection() -> None:
    server = server_ready()
    block = CONNECT + SMALL_FIELD * 1_900
    cost = 1_902 // FIELDS_PER_CREDIT
    server.allowance.left_for_work = 500  # not 4,000: each costs 20 ms here too
    for served in range(ALLOWANCE_START):
        (event,) = server.receive(request_frame(2 * served + 1, block))
        if isinstance(event, ConnectionFailed):
            break
        assert isinstance(event, RequestReceived)
        server.respond(event.stream, 401, [], end_stream=True)
        server.reset(event.stream, ErrorCode.NO_ERROR)
        server.take()
    assert is_end([event])
    assert served <= 500 // (cost - 12) + 1


def test_two_table_size_updates_are_enough() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1, b"\x20\x3f\xe1\x1f" + CONNECT))
    assert isinstance(request, RequestReceived)
    for updates in (b"\x20" * 3, b"\x20" * 60_000, b"\x3f\xe1\x1f" * 3):
        events = server_ready().receive(request_frame(1, updates + CONNECT))
        assert is_end(list(events), ErrorCode.COMPRESSION_ERROR)


def test_a_client_that_never_reads_its_refusals_is_cut_off() -> None:
    server = server_ready()
    for number in range(100_000):
        events = server.receive(request_frame(2 * number + 1))
        if is_end(list(events)):
            break
        (request,) = events
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 401, [], end_stream=True)
        server.reset(request.stream, ErrorCode.NO_ERROR)
    assert server.closed
    assert len(server.outbound) < REPLY_BYTES_MAX + 100


def test_the_answers_to_all_streams_may_wait_for_a_slow_client() -> None:
    server = server_ready()
    baggage = [("baggage", f"k8s.pod.name={'p' * 253},k8s.namespace.name={'n' * 63}")]
    for number in range(200):
        (request,) = server.receive(request_frame(2 * number + 1))
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 200, baggage, end_stream=False)
    assert server.receive(pack_settings([])) != []
    assert not server.closed


def test_tunnels_without_a_window_queue_nothing() -> None:
    server = server_ready()
    server.receive(pack_settings([(Setting.INITIAL_WINDOW_SIZE, 0)]))
    streams = []
    for number in range(200):
        (request,) = server.receive(request_frame(2 * number + 1))
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 200, [], end_stream=False)
        streams.append(request.stream)
    server.take()
    assert {server.room(stream) for stream in streams} == {0}
    for stream in streams:
        with pytest.raises(ValueError):
            server.send_data(stream, b"x")
        server.end(stream)  # an empty frame needs no window
    assert len(server.outbound) == 200 * 9
    assert server.receive(request_frame(401)) == [], "half-closed ones count"
    assert bytes(server.take()).endswith(pack_rst_stream(401, ErrorCode.REFUSED_STREAM))


def test_what_a_peer_may_send_unread_is_the_connections_window_and_no_more() -> None:
    server = server_ready(SessionSettings(connection_window_bytes=1 << 20))
    held = 0
    for number in range(20):
        data = pack_frame(DATA, 0, 2 * number + 1, bytes(60_000))
        events = server.receive(request_frame(2 * number + 1) + data)
        held += sum(len(event.data) for event in events if isinstance(event, DataReceived))
        if server.closed:
            break
    assert is_end(list(events), ErrorCode.FLOW_CONTROL_ERROR)
    assert held == (1 << 20) // 60_000 * 60_000


def test_a_cancel_now_and_then_for_years_is_no_flood() -> None:
    server = server_ready()
    for number in range(3 * ALLOWANCE_START):
        stream_id = 2 * number + 1
        assert len(server.receive(request_frame(stream_id) + pack_rst_stream(stream_id, 8))) == 2
        server.take()
    assert not server.closed


def test_a_gateways_dozens_of_fields_are_no_flood() -> None:
    server = server_ready()
    block = CONNECT + SMALL_FIELD * 100
    for number in range(50):
        (request,) = server.receive(request_frame(2 * number + 1, block))
        assert isinstance(request, RequestReceived)
        server.respond(request.stream, 200, [], end_stream=True)
        server.reset(request.stream, ErrorCode.NO_ERROR)
        server.take()
    assert server.allowance.left_for_work >= ALLOWANCE_START, "an answer earns what it cost"


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8])
def test_frames_in_drips_are_a_flood_however_slow_they_are(piece: int) -> None:
    """Each read is paid for by the frame that it completes, and none is complete."""
    server = server_ready()
    ping = pack_frame(PING, 0, 0, bytes(8))
    for _ in range(ALLOWANCE_START):
        for at in range(0, len(ping), piece):
            events = server.receive(ping[at : at + piece])
            if events:
                assert is_end(events)
                return
    raise AssertionError("nobody minded")


def test_a_peer_whose_reads_cut_every_frame_once_is_honest() -> None:
    server = server_ready()
    stream = b"".join(pack_frame(PING, 0, 0, bytes(8)) for _ in range(3 * ALLOWANCE_START))
    for at in range(0, len(stream), 17 * 3 - 1):
        assert not is_end(server.receive(stream[at : at + 17 * 3 - 1]))
        server.take()


@pytest.mark.parametrize("size", [64, 1024, 16_384])
def test_bytes_that_nobody_wants_pay_for_no_frames(size: int) -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    server.reset(request.stream, ErrorCode.CANCEL)
    piece = pack_frame(DATA, 0, 1, bytes(size)) * 16
    for _ in range(ALLOWANCE_START):
        server.take()
        events = server.receive(piece)
        if events:
            assert is_end(events)
            return
    raise AssertionError("nobody minded")


def test_a_window_of_a_stream_that_was_reset_is_no_attack() -> None:
    server = server_ready()
    (request,) = server.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    window = server.stream_window_bytes
    server.reset(request.stream, ErrorCode.CANCEL)
    for _ in range(window // 16_384):
        server.take()
        assert server.receive(pack_frame(DATA, 0, 1, bytes(16_384))) == []
