"""Our session against libnghttp2: in memory as its server and as its client, and through curl."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.peers.h2c_server import NO_TUNNEL, h2c_server
from tests.support.peers.nghttp2 import Peer
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
from ztunnel.hbone.frames import Setting
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, SERVER_SETTINGS, Role, SessionSettings
from ztunnel.hbone.stream import Stream

BODY = bytes(range(256)) * 2_000  # 512,000 bytes: several default windows
WINDOWS = [100, 65_535, 4 << 20]
TURNS_MAX = 50_000  # each moves at least half of the smallest window


class Meeting:
    def __init__(
        self, role: Role, ours: SessionSettings, theirs: list[tuple[int, int]] | None = None
    ) -> None:
        self.ours = Session(role, ours)
        self.theirs = Peer(client=role is Role.SERVER, settings=theirs or [])
        self.ours.start()
        self._events: list[Event] = []
        self.settle()
        self.events()

    def exchange(self) -> bool:
        incoming = self.theirs.take()
        if incoming:
            self._events += self.ours.receive(incoming)
        outgoing = bytes(self.ours.take())
        if outgoing:
            self.theirs.receive(outgoing)
        return bool(incoming or outgoing)

    def settle(self) -> None:
        while self.exchange():
            pass

    def events(self) -> list[Event]:
        """Events since the last call; neither side may have found a fault."""
        events, self._events = self._events, []
        assert not [event for event in events if isinstance(event, ConnectionFailed)]
        assert not self.theirs.complaints
        return events


Meet = Callable[..., Meeting]


@pytest.fixture
def meet() -> Iterator[Meet]:
    meetings: list[Meeting] = []

    def make(
        role: Role, ours: SessionSettings, theirs: list[tuple[int, int]] | None = None
    ) -> Meeting:
        meetings.append(Meeting(role, ours, theirs))
        return meetings[-1]

    yield make
    for meeting in meetings:
        meeting.theirs.close()


def asked(meeting: Meeting) -> list[RequestReceived]:
    return [event for event in meeting.events() if isinstance(event, RequestReceived)]


def tunnel_from_them(meeting: Meeting) -> Stream:
    meeting.theirs.connect("10.0.0.1:80")
    meeting.settle()
    (request,) = asked(meeting)
    meeting.ours.respond(request.stream, 200, [], end_stream=False)
    meeting.settle()
    return request.stream


def transfer(meeting: Meeting, stream: Stream, body: bytes) -> None:
    """The same body both ways at once, and both ends."""
    ours, theirs = meeting.ours, meeting.theirs.tunnels[stream.id]
    meeting.theirs.say(stream.id, body, end=True)
    got, sent, ended = bytearray(), 0, False
    for _ in range(TURNS_MAX):
        room = min(ours.room(stream), len(body) - sent)
        if room:
            ours.send_data(stream, body[sent : sent + room])
            sent += room
            if sent == len(body):
                ours.end(stream)
        meeting.exchange()
        for event in meeting.events():
            if isinstance(event, DataReceived):
                got += event.data
                ours.consumed(event.stream, len(event.data))
            ended = ended or isinstance(event, StreamEnded)
        if ended and theirs.ended_by_peer:
            break
    meeting.settle()
    assert got == body
    assert theirs.got == body
    assert theirs.closed_with == ErrorCode.NO_ERROR
    assert ours.idle


@pytest.mark.parametrize("their_window", WINDOWS)
@pytest.mark.parametrize("our_window", WINDOWS)
def test_nghttp2_as_client(meet: Meet, our_window: int, their_window: int) -> None:
    ours = SessionSettings(initial_window_bytes=our_window, max_concurrent_streams=200)
    meeting = meet(Role.SERVER, ours, [(Setting.INITIAL_WINDOW_SIZE, their_window)])
    stream_id = meeting.theirs.connect("[2001:db8::1]:80", [("baggage", "a=b")])
    meeting.settle()
    (request,) = asked(meeting)
    assert (request.method, request.authority) == ("CONNECT", "[2001:db8::1]:80")
    assert request.headers == [("baggage", "a=b")]
    meeting.ours.respond(request.stream, 200, [("baggage", "c=d")], end_stream=False)
    meeting.settle()
    headers = meeting.theirs.tunnels[stream_id].headers
    assert headers == {":status": "200", "baggage": "c=d"}
    small = min(our_window, their_window) == 100
    transfer(meeting, request.stream, BODY[:20_000] if small else BODY)


@pytest.mark.parametrize("their_window", WINDOWS)
@pytest.mark.parametrize("our_window", WINDOWS)
def test_nghttp2_as_server(meet: Meet, our_window: int, their_window: int) -> None:
    ours = SessionSettings(initial_window_bytes=our_window)
    meeting = meet(Role.CLIENT, ours, [(Setting.INITIAL_WINDOW_SIZE, their_window)])
    stream = meeting.ours.request("10.0.0.1:80", [("forwarded", 'for="1.2.3.4:5"')])
    meeting.settle()
    assert meeting.theirs.tunnels[stream.id].headers == {
        ":method": "CONNECT",
        ":authority": "10.0.0.1:80",
        "forwarded": 'for="1.2.3.4:5"',
    }
    meeting.theirs.answer(stream.id, 200)
    meeting.settle()
    (response,) = [e for e in meeting.events() if isinstance(e, ResponseReceived)]
    assert (response.stream, response.status) == (stream, 200)
    small = min(our_window, their_window) == 100
    transfer(meeting, stream, BODY[:20_000] if small else BODY)


def test_a_tunnel_stays_half_open_for_as_long_as_one_side_speaks(meet: Meet) -> None:
    meeting = meet(Role.SERVER, SERVER_SETTINGS)
    stream = tunnel_from_them(meeting)
    meeting.theirs.say(stream.id, b"question", end=True)
    meeting.settle()
    assert meeting.events()[-1] == StreamEnded(stream)
    for _ in range(3):
        meeting.ours.send_data(stream, b"answer ")
        meeting.settle()
    assert meeting.theirs.tunnels[stream.id].got == b"answer answer answer "
    assert meeting.theirs.tunnels[stream.id].closed_with is None
    meeting.ours.end(stream)
    meeting.settle()
    assert meeting.theirs.tunnels[stream.id].closed_with == ErrorCode.NO_ERROR


def test_resets_of_both_sides_and_pings(meet: Meet) -> None:
    meeting = meet(Role.SERVER, SERVER_SETTINGS)
    first, second = tunnel_from_them(meeting), tunnel_from_them(meeting)
    meeting.theirs.say(second.id, bytes(30_000))
    meeting.ours.reset(first, ErrorCode.CONNECT_ERROR)
    meeting.theirs.reset(second.id, ErrorCode.CANCEL)
    meeting.theirs.ping()
    meeting.ours.ping(b"12345678")
    meeting.settle()
    assert meeting.theirs.tunnels[first.id].closed_with == ErrorCode.CONNECT_ERROR
    events = meeting.events()
    assert StreamReset(second, ErrorCode.CANCEL) in events
    assert PingAcknowledged(b"12345678") in events
    assert meeting.theirs.pongs == 1
    assert meeting.ours.receive_window + meeting.ours.credit == 16 << 20


def test_a_refusal_with_data_under_way(meet: Meet) -> None:
    """Our engine's answer to a request that no policy allows."""
    meeting = meet(Role.SERVER, SERVER_SETTINGS)
    stream_id = meeting.theirs.connect("10.0.0.1:80")
    meeting.theirs.say(stream_id, bytes(100_000))
    meeting.settle()
    (request,) = asked(meeting)
    meeting.ours.respond(request.stream, 401, [], end_stream=True)
    meeting.ours.reset(request.stream, ErrorCode.NO_ERROR)
    meeting.settle()
    refused = meeting.theirs.tunnels[stream_id]
    assert refused.headers == {":status": "401"}
    assert (refused.ended_by_peer, refused.closed_with) == (True, ErrorCode.NO_ERROR)
    transfer(meeting, tunnel_from_them(meeting), b"the connection lives")


def test_our_drain(meet: Meet) -> None:
    meeting = meet(Role.SERVER, SERVER_SETTINGS)
    stream = tunnel_from_them(meeting)
    meeting.ours.goaway(ErrorCode.NO_ERROR, drain=True)
    meeting.settle()
    meeting.ours.finish_goaway()
    meeting.settle()
    assert meeting.theirs.goaways == [(0x7FFF_FFFF, 0), (stream.id, 0)]
    transfer(meeting, stream, BODY)
    assert meeting.theirs.finished


def test_our_drain_as_a_client(meet: Meet) -> None:
    meeting = meet(Role.CLIENT, CLIENT_SETTINGS)
    stream = meeting.ours.request("10.0.0.1:80", [])
    meeting.settle()
    meeting.theirs.answer(stream.id, 200)
    meeting.ours.goaway(ErrorCode.NO_ERROR, drain=True)
    meeting.settle()
    assert meeting.theirs.goaways == [(0x7FFF_FFFE, 0)]
    transfer(meeting, stream, BODY)
    assert meeting.ours.idle


def test_their_drain(meet: Meet) -> None:
    meeting = meet(Role.CLIENT, CLIENT_SETTINGS)
    first = meeting.ours.request("10.0.0.1:80", [])
    meeting.settle()
    meeting.theirs.answer(first.id, 200)
    meeting.theirs.announce_end()
    meeting.settle()
    assert meeting.ours.draining
    assert not meeting.ours.can_open
    meeting.theirs.goaway(first.id, ErrorCode.NO_ERROR)
    meeting.settle()
    goaways = [event for event in meeting.events() if isinstance(event, GoAwayReceived)]
    assert goaways == [GoAwayReceived(0x7FFF_FFFF, 0), GoAwayReceived(first.id, 0)]
    transfer(meeting, first, BODY)
    assert meeting.ours.idle


@pytest.mark.parametrize("table_bytes", [0, 200, 4_096, 65_536])
def test_header_tables_stay_in_step_over_many_tunnels(meet: Meet, table_bytes: int) -> None:
    meeting = meet(Role.CLIENT, CLIENT_SETTINGS, [(Setting.HEADER_TABLE_SIZE, table_bytes)])
    for number in range(300):
        trace = f"00-{number:032}-1-00"
        headers = [("baggage", f"k8s.pod.name=p{number % 90}"), ("traceparent", trace)]
        stream = meeting.ours.request(f"10.0.0.{number % 250}:80", headers)
        meeting.settle()
        assert meeting.theirs.tunnels[stream.id].headers["traceparent"] == trace
        meeting.theirs.answer(stream.id, 503, [("x", str(number % 50))])
        meeting.theirs.say(stream.id, b"", end=True)
        meeting.ours.end(stream)
        meeting.settle()
        (response,) = [e for e in meeting.events() if isinstance(e, ResponseReceived)]
        assert response.headers == [("x", str(number % 50))]
    assert meeting.ours.idle


def test_a_table_emptied_and_restored_in_one_frame_keeps_the_tables_in_step(meet: Meet) -> None:
    sizes = [(Setting.HEADER_TABLE_SIZE, 0), (Setting.HEADER_TABLE_SIZE, 4_096)]
    meeting = meet(Role.CLIENT, CLIENT_SETTINGS, sizes)
    for _ in range(3):
        stream = meeting.ours.request("10.0.0.1:80", [("baggage", "a=b")])
        meeting.settle()
        assert meeting.theirs.tunnels[stream.id].headers["baggage"] == "a=b"
    assert not meeting.events()


def test_two_hundred_tunnels_at_once_share_the_connections_window(meet: Meet) -> None:
    meeting = meet(Role.SERVER, SERVER_SETTINGS)
    body = bytes(range(250)) * 40
    ids = [meeting.theirs.connect("10.0.0.1:80") for _ in range(200)]
    for stream_id in ids:
        meeting.theirs.say(stream_id, body, end=True)
    for _ in range(TURNS_MAX):
        moved = meeting.exchange()
        for event in meeting.events():
            if isinstance(event, RequestReceived):
                meeting.ours.respond(event.stream, 200, [], end_stream=False)
            elif isinstance(event, DataReceived):
                meeting.ours.consumed(event.stream, len(event.data))
                meeting.ours.send_data(event.stream, bytes(event.data[:100]))
            elif isinstance(event, StreamEnded):
                meeting.ours.end(event.stream)
        if not moved and meeting.ours.idle:
            break
    assert [meeting.theirs.tunnels[each].closed_with for each in ids] == [0] * 200
    assert meeting.ours.receive_window + meeting.ours.credit == 16 << 20


def test_curl_is_told_that_this_is_for_tunnels_only() -> None:
    with h2c_server() as port:
        # One request only: curl 7.88 cannot use such a connection for a second one.
        url = f"http://127.0.0.1:{port}/"
        options = ["--http2-prior-knowledge", "--write-out", "%{http_version} %{http_code}\n"]
        told = subprocess.run(
            ["curl", "-q", "-sS", "--noproxy", "*", *options, url],
            capture_output=True,
            timeout=30,
            check=True,
        )
    assert told.stdout == NO_TUNNEL + b"2 400\n", told.stderr
