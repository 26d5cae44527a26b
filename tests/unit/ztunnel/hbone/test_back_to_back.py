"""Two sessions and two little engines in memory: every byte arrives, whatever windows and cuts."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ztunnel.hbone.pair import Pair
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SessionSettings
from ztunnel.hbone.stream import Stream

# Rounds in which nothing may stall for ever: far more than the slowest window needs.
ROUNDS_MAX = 20_000


@dataclass(eq=False)
class End:
    """One end of one tunnel: what it has to send, what it got."""

    stream: Stream
    to_send: bytes
    sent: int = 0
    got: bytearray = field(default_factory=bytearray)
    unconsumed: int = 0
    ended: bool = False
    reset: int | None = None

    def push(self, session: Session, piece: int) -> None:
        length = min(session.room(self.stream), piece, len(self.to_send) - self.sent)
        if length:
            session.send_data(self.stream, self.to_send[self.sent : self.sent + length])
            self.sent += length
        if self.sent == len(self.to_send) and self.stream.state.sendable:
            session.end(self.stream)


class Engine:
    def __init__(self, session: Session, answers: list[bytes]) -> None:
        self.session = session
        self.ends: dict[int, End] = {}
        self.answers = answers
        self.goaways: list[int] = []

    def handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestReceived(stream):
                    self.ends[stream.id] = End(stream, self.answers[stream.id // 2])
                    self.session.respond(stream, 200, [], end_stream=False)
                case ResponseReceived(_, status):
                    assert status == 200
                case DataReceived(stream, data):
                    self.ends[stream.id].got += data
                    self.ends[stream.id].unconsumed += len(data)
                case StreamEnded(stream):
                    self.ends[stream.id].ended = True
                case StreamReset(stream, code):
                    self.ends[stream.id].reset = code
                case GoAwayReceived(last):
                    self.goaways.append(last)
                case ConnectionFailed(code, reason):
                    raise AssertionError(f"{code}: {reason}")

    def turn(self, piece: int, consume: int) -> None:
        for end in self.ends.values():
            length = min(end.unconsumed, consume)
            if length:
                self.session.consumed(end.stream, length)
                end.unconsumed -= length
            end.push(self.session, piece)


def move(source: Session, target: Engine, cut: int) -> int:
    data = bytes(source.take())
    for start in range(0, len(data), cut):
        target.handle(target.session.receive(data[start : start + cut]))
    return len(data)


def run(near: Engine, far: Engine, piece: int, consume: int, cut: int) -> None:
    """Turns until nothing moves any more."""
    for _ in range(ROUNDS_MAX):
        near.turn(piece, consume)
        moved = move(near.session, far, cut)
        far.turn(piece, consume)
        moved += move(far.session, near, cut)
        if not moved and not any(e.unconsumed for n in (near, far) for e in n.ends.values()):
            return
    raise AssertionError("still moving")


def engines(pair: Pair, questions: list[bytes], answers: list[bytes]) -> tuple[Engine, Engine]:
    near, far = Engine(pair.client, []), Engine(pair.server, answers)
    for question in questions:
        stream = pair.client.request("10.0.0.1:80", [("forwarded", "for=1.2.3.4:5")])
        near.ends[stream.id] = End(stream, question)
    return near, far


WINDOWS = st.sampled_from([1, 7, 100, 5_000, 65_535, 65_536, 1 << 20])
PAYLOADS = st.integers(0, 3_000).map(lambda size: bytes(number % 251 for number in range(size)))


@settings(max_examples=20, deadline=None)
@given(
    window=WINDOWS,
    connection=st.sampled_from([1, 65_535, 100_000, 16 << 20]),
    bodies=st.lists(st.tuples(PAYLOADS, PAYLOADS), min_size=1, max_size=4),
    piece=st.sampled_from([1_000, 3_000]),
    consume=st.sampled_from([100, 1 << 20]),
    cut=st.sampled_from([11, 1_009, 1 << 20]),
)
def test_every_byte_arrives_both_ways(
    window: int,
    connection: int,
    bodies: list[tuple[bytes, bytes]],
    piece: int,
    consume: int,
    cut: int,
) -> None:
    limits = SessionSettings(initial_window_bytes=window, connection_window_bytes=connection)
    pair = Pair(limits, limits)
    near, far = engines(pair, [body[0] for body in bodies], [body[1] for body in bodies])
    run(near, far, piece, consume, cut)
    for number, (question, answer) in enumerate(bodies):
        stream_id = 2 * number + 1
        assert far.ends[stream_id].got == question
        assert near.ends[stream_id].got == answer
        assert near.ends[stream_id].ended
        assert far.ends[stream_id].ended
    for session in (pair.client, pair.server):
        assert session.idle
        assert session.receive_window + session.credit == max(connection, 65_535)


def test_bulk_in_frames_of_a_mebibyte() -> None:
    pair = Pair()
    body = bytes(range(256)) * (40 << 10)  # 10 MiB
    near, far = engines(pair, [body], [body[::-1]])
    run(near, far, 1 << 20, 1 << 30, 256 << 10)
    assert far.ends[1].got == body
    assert near.ends[1].got == body[::-1]


def test_one_direction_may_end_long_before_the_other() -> None:
    pair = Pair()
    near, far = engines(pair, [b""], [b"x" * 200_000])
    run(near, far, 1_000, 1 << 20, 1 << 20)
    assert near.ends[1].got == b"x" * 200_000


def test_a_reset_ends_one_tunnel_and_the_others_finish() -> None:
    pair = Pair()
    bodies = [b"a" * 100_000, b"b" * 100_000, b"c" * 100_000]
    near, far = engines(pair, bodies, bodies)
    for _ in range(5):
        near.turn(5_000, 1_000)
        move(pair.client, far, 1_000)
        far.turn(5_000, 1_000)
        move(pair.server, near, 1_000)
    pair.client.reset(near.ends[1].stream, ErrorCode.CANCEL)
    pair.server.reset(far.ends[3].stream, ErrorCode.CONNECT_ERROR)
    run(near, far, 5_000, 1 << 20, 1_000)
    assert far.ends[1].reset == ErrorCode.CANCEL
    assert near.ends[3].reset == ErrorCode.CONNECT_ERROR
    assert near.ends[5].got == far.ends[5].got == bodies[2]
    assert pair.server.receive_window + pair.server.credit == 16 << 20
    assert pair.client.receive_window + pair.client.credit == 16 << 20


def test_a_goaway_in_the_middle_of_transfers_lets_them_finish() -> None:
    pair = Pair()
    bodies = [b"a" * 100_000, b"b" * 100_000]
    near, far = engines(pair, bodies, bodies)
    near.turn(5_000, 1_000)
    move(pair.client, far, 1_000)
    pair.server.goaway(ErrorCode.NO_ERROR, drain=True)
    far.turn(5_000, 1_000)
    move(pair.server, near, 1_000)
    pair.server.finish_goaway()
    run(near, far, 5_000, 1 << 20, 1_000)
    assert near.goaways == [0x7FFF_FFFF, 3]
    assert not pair.client.can_open
    assert all(end.got == b for end, b in zip(near.ends.values(), bodies, strict=True))
    assert pair.server.idle
    assert pair.server.draining
