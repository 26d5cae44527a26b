"""Our session against the h2 library in memory, as its server and as its client."""

from collections.abc import Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest

from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role, SessionSettings

BODY = bytes(range(256)) * 2_000  # 512,000 bytes: several of h2's windows of 64 KiB
WINDOWS = [100, 65_535, 4 << 20]
# Each turn moves at least half a window of the smallest kind.
TURNS_MAX = 50_000


class Meeting:
    """One of ours and one of theirs; h2 validates everything that we send."""

    def __init__(self, role: Role, ours: SessionSettings, their_window: int = 65_535) -> None:
        self.ours = Session(role, ours)
        config = h2.config.H2Configuration(client_side=role is Role.SERVER, header_encoding="utf-8")
        self.theirs = h2.connection.H2Connection(config)
        self.ours.start()
        self.theirs.initiate_connection()
        self.theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: their_window})
        self.our_events: list[Event] = []
        self.their_events: list[h2.events.Event] = []
        while self.exchange():
            pass
        self.our_turn()
        self.their_turn()

    def exchange(self) -> bool:
        """Move what is there; False when there was nothing."""
        outgoing = bytes(self.ours.take())
        if outgoing:
            self.their_events += self.theirs.receive_data(outgoing)
        incoming = self.theirs.data_to_send()
        if incoming:
            self.our_events += self.ours.receive(incoming)
        assert not [e for e in self.our_events if isinstance(e, ConnectionFailed)]
        return bool(outgoing or incoming)

    def our_turn(self) -> list[Event]:
        events, self.our_events = self.our_events, []
        return events

    def their_turn(self) -> list[h2.events.Event]:
        events, self.their_events = self.their_events, []
        return events


def their_data(meeting: Meeting, stream_id: int, got: bytearray) -> bool:
    ended = False
    for event in meeting.their_turn():
        if isinstance(event, h2.events.DataReceived):
            got += event.data
            meeting.theirs.acknowledge_received_data(event.flow_controlled_length, stream_id)
        ended = ended or isinstance(event, h2.events.StreamEnded)
    return ended


def their_push(meeting: Meeting, stream_id: int, body: bytes, sent: int) -> int:
    theirs = meeting.theirs
    room = min(theirs.local_flow_control_window(stream_id), theirs.max_outbound_frame_size, 16_384)
    piece = body[sent : sent + room]
    if piece:
        pad = 7 if sent % 3 == 0 and len(piece) + 8 <= room else None
        theirs.send_data(stream_id, piece, pad_length=pad)
    if piece and sent + len(piece) == len(body):
        theirs.end_stream(stream_id)
    return sent + len(piece)


def transfer(meeting: Meeting, stream: object, stream_id: int, body: bytes) -> None:
    """The same body both ways at once; both sides half-close when they are done."""
    ours = meeting.ours
    our_stream = ours.streams[stream_id]
    assert our_stream is stream
    got_here, got_there = bytearray(), bytearray()
    sent_here = sent_there = 0
    ended_here = ended_there = False
    for _ in range(TURNS_MAX):
        room = min(ours.room(our_stream), len(body) - sent_here)
        if room:
            ours.send_data(our_stream, body[sent_here : sent_here + room])
            sent_here += room
            if sent_here == len(body):
                ours.end(our_stream)
        if sent_there < len(body):
            sent_there = their_push(meeting, stream_id, body, sent_there)
        meeting.exchange()
        for event in meeting.our_turn():
            if isinstance(event, DataReceived):
                got_here += event.data
                ours.consumed(event.stream, len(event.data))
            ended_here = ended_here or isinstance(event, StreamEnded)
        ended_there = their_data(meeting, stream_id, got_there) or ended_there
        if ended_here and ended_there:
            break
    assert got_here == body
    assert got_there == body
    assert ours.idle


@pytest.mark.parametrize("their_window", WINDOWS)
@pytest.mark.parametrize("our_window", WINDOWS)
def test_h2_as_client(our_window: int, their_window: int) -> None:
    ours = SessionSettings(initial_window_bytes=our_window, max_concurrent_streams=200)
    meeting = Meeting(Role.SERVER, ours, their_window)
    meeting.theirs.send_headers(
        1, [(":method", "CONNECT"), (":authority", "[2001:db8::1]:80"), ("baggage", "a=b")]
    )
    meeting.exchange()
    (request,) = [e for e in meeting.our_turn() if isinstance(e, RequestReceived)]
    assert request.method == "CONNECT"
    assert request.authority == "[2001:db8::1]:80"
    assert request.headers == [("baggage", "a=b")]
    meeting.ours.respond(request.stream, 200, [("baggage", "c=d")], end_stream=False)
    meeting.exchange()
    (response,) = [e for e in meeting.their_turn() if isinstance(e, h2.events.ResponseReceived)]
    assert dict(response.headers) == {":status": "200", "baggage": "c=d"}
    body = BODY if our_window > 100 and their_window > 100 else BODY[:20_000]
    transfer(meeting, request.stream, 1, body)


@pytest.mark.parametrize("their_window", WINDOWS)
@pytest.mark.parametrize("our_window", WINDOWS)
def test_h2_as_server(our_window: int, their_window: int) -> None:
    meeting = Meeting(Role.CLIENT, SessionSettings(initial_window_bytes=our_window), their_window)
    stream = meeting.ours.request("10.0.0.1:80", [("forwarded", 'for="1.2.3.4:5"')])
    meeting.exchange()
    (request,) = [e for e in meeting.their_turn() if isinstance(e, h2.events.RequestReceived)]
    assert request.headers == [
        (":method", "CONNECT"),
        (":authority", "10.0.0.1:80"),
        ("forwarded", 'for="1.2.3.4:5"'),
    ]
    meeting.theirs.send_headers(1, [(":status", "200")])
    meeting.exchange()
    (response,) = [e for e in meeting.our_turn() if isinstance(e, ResponseReceived)]
    assert (response.stream, response.status) == (stream, 200)
    body = BODY if our_window > 100 and their_window > 100 else BODY[:20_000]
    transfer(meeting, stream, 1, body)


def test_refusals_resets_and_pings_are_understood() -> None:
    meeting = Meeting(Role.SERVER, SERVER_SETTINGS)
    theirs, ours = meeting.theirs, meeting.ours
    for stream_id in (1, 3):
        theirs.send_headers(stream_id, [(":method", "CONNECT"), (":authority", "web:80")])
    meeting.exchange()
    first, second = [e.stream for e in meeting.our_turn() if isinstance(e, RequestReceived)]
    ours.respond(first, 401, [], end_stream=True)
    ours.reset(second, ErrorCode.CONNECT_ERROR)
    ours.ping(b"12345678")
    theirs.ping(b"87654321")
    meeting.exchange()
    meeting.exchange()
    kinds = [event.__class__ for event in meeting.their_turn()]
    assert h2.events.ResponseReceived in kinds
    assert h2.events.StreamReset in kinds
    assert h2.events.PingAckReceived in kinds
    assert PingAcknowledged(b"12345678") in meeting.our_turn()
    theirs.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    meeting.exchange()
    assert meeting.our_turn() == [StreamReset(first, ErrorCode.CANCEL)]


def test_many_tunnels_keep_the_compression_states_in_step() -> None:
    meeting = Meeting(Role.CLIENT, CLIENT_SETTINGS)
    meeting.theirs.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 200})
    for number in range(300):
        stream = meeting.ours.request(
            f"10.0.0.{number % 250}:80",
            [("baggage", f"k8s.pod.name=p{number % 9}"), ("traceparent", f"00-{number:032}-1-00")],
        )
        meeting.exchange()
        (request,) = [e for e in meeting.their_turn() if isinstance(e, h2.events.RequestReceived)]
        assert dict(request.headers)["traceparent"] == f"00-{number:032}-1-00"
        meeting.theirs.send_headers(
            stream.id, [(":status", "503"), ("x", str(number))], end_stream=True
        )
        meeting.ours.end(stream)
        meeting.exchange()
        (response,) = [e for e in meeting.our_turn() if isinstance(e, ResponseReceived)]
        assert response.headers == [("x", str(number))]
    assert meeting.ours.idle


def test_goaways_are_understood() -> None:
    meeting = Meeting(Role.SERVER, SERVER_SETTINGS)
    meeting.ours.goaway(ErrorCode.NO_ERROR, drain=True)
    meeting.exchange()
    (gone,) = [e for e in meeting.their_turn() if isinstance(e, h2.events.ConnectionTerminated)]
    assert (gone.error_code, gone.last_stream_id) == (0, 0x7FFF_FFFF)
    meeting = Meeting(Role.CLIENT, CLIENT_SETTINGS)
    meeting.theirs.close_connection()
    meeting.exchange()
    assert GoAwayReceived(0, 0) in meeting.our_turn()
    assert not meeting.ours.can_open


def _oversized(meeting: Meeting) -> bytes:
    return bytes.fromhex("ffffff000000000001")


def _push(meeting: Meeting) -> bytes:
    return bytes.fromhex("000004050400000001") + bytes(4)


@pytest.mark.parametrize("attack", [_oversized, _push])
def test_the_reason_of_a_failure_reaches_the_peer(attack: Callable[[Meeting], bytes]) -> None:
    meeting = Meeting(Role.CLIENT, CLIENT_SETTINGS)
    (failed,) = meeting.ours.receive(attack(meeting))
    assert isinstance(failed, ConnectionFailed)
    (gone,) = meeting.theirs.receive_data(bytes(meeting.ours.take()))
    assert isinstance(gone, h2.events.ConnectionTerminated)
    assert gone.error_code == failed.code
    assert gone.additional_data == failed.reason.encode()
