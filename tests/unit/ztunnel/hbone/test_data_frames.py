"""DATA: whole, cut, padded and empty; runs, events and resets in the middle of a read."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import (
    Pair,
    data_of,
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
    PingAcknowledged,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.frames import (
    ACK,
    DATA,
    END_STREAM,
    PADDED,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    pack_frame,
)
from ztunnel.hbone.limits import REFILL_PER_READ, WORK_BYTES_PER_CREDIT
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SessionSettings
from ztunnel.hbone.stream import Stream

PONG = pack_frame(PING, ACK, 0, b"12345678")


def serving(*, window_bytes: int = 16 << 20) -> tuple[Session, Stream]:
    """A server and stream 1 of it, which may receive."""
    session = server_ready(SessionSettings(connection_window_bytes=window_bytes))
    (request,) = session.receive(request_frame(1))
    assert isinstance(request, RequestReceived)
    return session, request.stream


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


def test_data_under_way_to_a_reset_stream_is_dropped_and_its_window_given_back() -> None:
    pair = Pair(server_settings=SessionSettings(connection_window_bytes=70_000))
    near, far = pair.tunnel()
    pair.client.send_data(near, bytes(60_000))
    pair.server.reset(far, ErrorCode.CANCEL)
    assert pair.to_server() == []
    assert pair.to_client() == [StreamReset(near, ErrorCode.CANCEL)]
    assert pair.client.send_window == 70_000


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


class Log:
    """Takes what is handed over directly, as an owner does, and may reset the stream."""

    def __init__(self, session: Session, *, resets: bool = False) -> None:
        self.got: list[tuple[int, list[bytes], bool]] = []
        self._session = session
        self._resets = resets

    def __call__(self, stream: Stream, piece: memoryview, run: list[memoryview] | None) -> None:
        assert run is None or (run[0] is piece and len(run) > 1)
        self.got.append((stream.id, [bytes(each) for each in run or [piece]], stream.ending))
        if self._resets:
            self._session.reset(stream, ErrorCode.CANCEL)


def test_the_rest_of_a_cut_frame_and_the_frames_behind_it_are_one_run() -> None:
    server, stream = serving()
    log = Log(server)
    data = pack_frame(DATA, 0, 1, b"abcdef") + pack_frame(DATA, 0, 1, b"gh")
    assert server.receive(data[:12], log) == []
    assert server.receive(data[12:] + pack_frame(DATA, END_STREAM, 1, b"i"), log) == [
        StreamEnded(stream)
    ]
    assert log.got == [(1, [b"abc"], False), (1, [b"def", b"gh", b"i"], True)]


def test_the_last_piece_of_a_whole_frame_is_marked_as_the_last() -> None:
    server, stream = serving()
    log = Log(server)
    events = server.receive(pack_frame(DATA, END_STREAM, 1, b"bye"), log)
    assert (log.got, events) == ([(1, [b"bye"], True)], [StreamEnded(stream)])


@pytest.mark.parametrize(
    "behind",
    [
        pack_frame(DATA, END_STREAM, 1, b""),
        pack_frame(DATA, END_STREAM, 1, b"more"),
        pack_frame(DATA, END_STREAM | PADDED, 1, b"\x01more" + bytes(1)),
        pack_frame(1, 0x5, 1, b"\x00\x01a\x01b"),
    ],
    ids=["end", "last data", "padded data", "trailers"],
)
@pytest.mark.parametrize("cut", [0, 11])
def test_a_reset_by_the_owner_lets_nothing_more_through(behind: bytes, cut: int) -> None:
    """The owner hears of DATA in the middle of a read; frames of its stream may follow."""
    server, _ = serving(window_bytes=100_000)
    log = Log(server, resets=True)
    data = pack_frame(DATA, 0, 1, b"data") + PONG + behind
    events = server.receive(data[:cut], log) + server.receive(data[cut:], log)
    assert [each for each in events if not isinstance(each, PingAcknowledged)] == []
    assert log.got == [(1, [b"da"] if cut else [b"data"], False)]
    assert server.receive_window + server.credit == 100_000
    assert [kind for kind, *_ in frames_of(server.outbound)] == [RST_STREAM]
    assert not server.closed


def test_a_reset_just_before_the_end_of_a_cut_frame_hides_the_end() -> None:
    server, _ = serving()
    log = Log(server)
    frame = pack_frame(DATA, 0, 1, b"data")
    server.receive(frame[:11], log)
    resetting = Log(server, resets=True)
    assert server.receive(frame[11:] + pack_frame(DATA, END_STREAM, 1, b""), resetting) == []
    assert (log.got, resetting.got) == ([(1, [b"da"], False)], [(1, [b"ta"], False)])


def test_after_an_event_data_is_an_event_too() -> None:
    server, stream = serving()
    log = Log(server)
    data = pack_frame(DATA, 0, 1, b"one") + PONG + pack_frame(DATA, 0, 1, b"two") * 2
    events = server.receive(data, log)
    assert log.got == [(1, [b"one"], False)]
    assert events[0] == PingAcknowledged(b"12345678")
    assert [event.stream for event in events[1:] if isinstance(event, DataReceived)] == [stream] * 2
    assert data_of(events) == b"twotwo"


def test_the_next_read_is_not_handed_to_the_last_reads_owner() -> None:
    server, _ = serving()
    log = Log(server)
    server.receive(pack_frame(DATA, 0, 1, b"one"), log)
    assert data_of(server.receive(pack_frame(DATA, 0, 1, b"two"))) == b"two"
    assert len(log.got) == 1


def test_empty_data_costs_the_peer_its_allowance_but_an_end_does_not() -> None:
    server, _ = serving()
    before = server.allowance.left
    empty = pack_frame(DATA, 0, 1, b"") * 10
    assert server.receive(empty + pack_frame(DATA, END_STREAM, 1, b"")) != []
    assert server.allowance.left == before - 10 + REFILL_PER_READ
    server, _ = serving()
    only_padding = pack_frame(DATA, PADDED, 1, b"\x02" + bytes(2)) * 10
    assert server.receive(only_padding) == []
    assert server.allowance.left == before - 10 + REFILL_PER_READ + 30 // WORK_BYTES_PER_CREDIT
