"""Foreign bytes against the tunnel's HTTP/2 layer: about five seconds, the same bytes each time.

Real transcripts are cut, mixed and damaged, and a careless engine acts on whatever comes out.
Whatever happens, receive gives events, at most one failure and that last, and windows add up.
"""

import random
from collections.abc import Iterator

import pytest

from ztunnel.hbone.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
)
from ztunnel.hbone.frames import PREFACE, WINDOW_MAX, pack_frame, pack_settings
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import Role, SessionSettings
from ztunnel.hbone.states import CLOSED
from ztunnel.hbone.stream import Stream

ROUNDS = 8_000  # for each role, about two seconds
LIMITS = SessionSettings(
    initial_window_bytes=5_000,
    connection_window_bytes=70_000,
    header_list_bytes=2_000,
    max_concurrent_streams=5,
)
# Everything a session can have in its buffers: our own writes, and one header block.
OUTBOUND_BYTES_MAX = 400_000


def client_frames(dice: random.Random) -> Iterator[bytes]:
    """Legal output of a client, in pieces that stay whole until they are damaged."""
    client = Session(Role.CLIENT, LIMITS)
    client.start()
    yield bytes(client.take())
    client.receive(pack_settings([]))
    yield bytes(client.take())
    for _ in range(dice.randrange(8)):
        stream = client.request("10.0.0.1:80", [("baggage", "a=b" * dice.randrange(9))])
        yield bytes(client.take())
        client.send_data(stream, dice.randbytes(dice.randrange(3_000)))
        yield bytes(client.take())
        if dice.randrange(2):
            client.end(stream)
        else:
            client.reset(stream, dice.randrange(20))
        client.ping(bytes(8))
        yield bytes(client.take())


def server_frames(dice: random.Random) -> Iterator[bytes]:
    yield pack_settings([(4, dice.choice([0, 1, 65_535, WINDOW_MAX])), (5, 16_384), (1, 100)])
    for number in range(dice.randrange(8)):
        stream_id = 2 * number + 1
        yield pack_frame(
            1, 4, stream_id, dice.choice([b"\x88", b"\x20\x88\x40\x01a\x01b", b"\x8c"])
        )
        yield pack_frame(0, dice.choice([0, 1]), stream_id, dice.randbytes(dice.randrange(3_000)))
        yield pack_frame(8, 0, dice.choice([0, stream_id]), b"\x00\x00\x10\x00")
        yield pack_frame(1, 5, stream_id, b"")


def damaged(dice: random.Random, pieces: list[bytes]) -> bytes:
    for _ in range(dice.randrange(4)):
        match dice.randrange(5):
            case 0:
                pieces.insert(dice.randrange(len(pieces)), dice.choice(pieces))
            case 1:
                pieces.pop(dice.randrange(len(pieces)))
            case 2:
                noise = pack_frame(
                    dice.randrange(12),
                    dice.randrange(256),
                    dice.randrange(12),
                    dice.randbytes(dice.randrange(50)),
                )
                pieces.insert(dice.randrange(len(pieces) + 1), noise)
            case _:
                data = bytearray(b"".join(pieces))
                if data:
                    data[dice.randrange(len(data))] = dice.randrange(256)
                pieces = [bytes(data)]
        if not pieces:
            pieces = [b""]
    return b"".join(pieces)


class CarelessEngine:
    """Answers, sends, consumes, resets and closes by chance, within what a session promises."""

    def __init__(self, dice: random.Random, role: Role) -> None:
        self.dice = dice
        self.session = Session(role, LIMITS)
        self.session.start()
        self.unconsumed: dict[Stream, int] = {}
        if role is Role.CLIENT:
            for _ in range(dice.randrange(6)):
                self.session.request("10.0.0.1:80", [])

    def act(self, event: Event) -> None:
        dice, session = self.dice, self.session
        match event:
            case RequestReceived(stream):
                if dice.randrange(5):
                    session.respond(stream, dice.choice([200, 503]), [], dice.randrange(4) == 0)
            case DataReceived(stream, data):
                assert len(data) > 0
                self.unconsumed[stream] = self.unconsumed.get(stream, 0) + len(data)
                assert self.unconsumed[stream] <= 65_535
                if dice.randrange(2):
                    session.consumed(stream, self.unconsumed.pop(stream))
            case StreamEnded(stream) if stream.state.sendable:
                session.end(stream)
            case ResponseReceived(stream) | StreamEnded(stream) if dice.randrange(6) == 0:
                session.reset(stream, 8)
            case ConnectionFailed():
                assert session.closed
            case _:
                pass
        stream = getattr(event, "stream", None)
        if stream is not None and (room := session.room(stream)) and dice.randrange(3) == 0:
            session.send_data(stream, bytes(min(room, 2_000)))

    def check(self, events: list[Event]) -> None:
        session = self.session
        assert not any(isinstance(event, ConnectionFailed) for event in events[:-1])
        assert len(session.outbound) <= OUTBOUND_BYTES_MAX
        assert 0 <= session.receive_window <= session.receive_window + session.credit <= 70_000
        assert 0 <= session.send_window <= WINDOW_MAX
        assert len(session.streams) <= 6
        for stream in session.streams.values():
            assert stream.receive_window + stream.credit <= session.stream_window_bytes
            assert stream.send_window <= WINDOW_MAX
            assert stream.state is not CLOSED


@pytest.mark.parametrize("role", list(Role))
def test_damaged_conversations_never_raise_and_windows_add_up(role: Role) -> None:
    for seed in range(ROUNDS):
        dice = random.Random(seed)
        frames = client_frames(dice) if role is Role.SERVER else server_frames(dice)
        data = damaged(dice, list(frames))
        engine = CarelessEngine(dice, role)
        start = 0
        while start < len(data):
            end = start + dice.choice([1, 5, 9, 10, 100, 1_000, 10_000])
            events = engine.session.receive(data[start:end])
            for event in events:
                engine.act(event)
            engine.check(events)
            start = end


def test_pure_noise_is_refused() -> None:
    for seed in range(1_000):
        dice = random.Random(seed)
        for role, hello in ((Role.SERVER, PREFACE), (Role.CLIENT, b"")):
            session = Session(role, LIMITS)
            session.receive(hello + pack_settings([]))
            session.receive(dice.randbytes(dice.randrange(400)))
            session.receive(b"")
