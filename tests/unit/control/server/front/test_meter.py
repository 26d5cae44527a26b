"""Figures of a passing HTTP/2 connection: calls, costs, and bytes of unfinished messages."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.front.meter import (
    DATA,
    END_STREAM,
    FRAME_COST,
    HEADERS,
    LARGE_BYTES,
    MESSAGE_COST,
    PADDED,
    PREFACE,
    REQUEST_BYTES_MAX,
    RST_STREAM,
    STREAMS_MAX,
    Meter,
    Misbehaved,
)


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    length = len(payload)
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def message(length: int, sent: int | None = None, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, length) + bytes(length if sent is None else sent)


def data(stream: int, payload: bytes, padding: int | None = None, flags: int = 0) -> bytes:
    """DATA frames of 16 KiB at most."""
    if padding is not None:
        return frame(DATA, stream, bytes([padding]) + payload + bytes(padding), flags | PADDED)
    pieces = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
    return b"".join(frame(DATA, stream, each) for each in pieces[:-1]) + frame(
        DATA, stream, pieces[-1], flags
    )


def opened(*streams: int) -> Meter:
    meter = Meter()
    meter.received(memoryview(PREFACE + b"".join(frame(HEADERS, each) for each in streams)))
    return meter


def feed(meter: Meter, content: bytes) -> int:
    return meter.received(memoryview(content))


PARTS = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.integers(0, 3), st.integers(0, 3 * LARGE_BYTES)),
        st.tuples(st.just("padded"), st.integers(0, 3), st.integers(0, 255)),
        st.tuples(st.just("other"), st.integers(4, 200), st.integers(0, 40)),
        st.tuples(st.just("reset"), st.integers(0, 3), st.just(0)),
    ),
    max_size=8,
)


@given(PARTS, st.lists(st.integers(1, 5000), max_size=20))
def test_figures_do_not_depend_on_how_bytes_arrive(
    parts: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    content = bytearray(PREFACE + b"".join(frame(HEADERS, each * 2 + 1) for each in range(4)))
    for kind, which, size in parts:
        stream = which * 2 + 1
        if kind == "message":
            content += data(stream, message(size))
        elif kind == "padded":
            content += data(stream, message(size), padding=size)
        elif kind == "other":
            content += frame(which, stream, bytes(size))
        else:
            content += frame(RST_STREAM, stream, bytes(4))
    whole, pieces = Meter(), Meter()
    cost = whole.received(memoryview(content))
    at = total = 0
    for cut in [*cuts, len(content)]:
        total += feed(pieces, bytes(content[at : at + cut]))
        at += cut
    total += feed(pieces, bytes(content[at:]))
    assert (total, pieces.unfinished, pieces.calls) == (cost, 0, 4)
    assert whole.unfinished == 0


def test_a_large_message_counts_from_its_first_bytes_to_its_end() -> None:
    meter = opened(1, 3)
    feed(meter, data(1, message(LARGE_BYTES, sent=10)))
    assert meter.unfinished == 0, "small enough"
    feed(meter, data(3, message(1_000_000, sent=999_999)))
    assert meter.unfinished == 1_000_000
    feed(meter, data(3, b"x"))
    assert meter.unfinished == 0


@pytest.mark.parametrize("by", ["client", "end", "server", "trailers"])
def test_a_stream_that_ends_gives_its_message_up(by: str) -> None:
    meter = opened(1)
    feed(meter, data(1, message(1_000_000, sent=5)))
    assert meter.unfinished == 1_000_000
    if by == "client":
        feed(meter, frame(RST_STREAM, 1, bytes(4)))
    elif by == "end":
        feed(meter, data(1, b"x", flags=END_STREAM))
    elif by == "server":
        meter.sent(memoryview(frame(RST_STREAM, 1, bytes(4))))
    else:
        meter.sent(memoryview(frame(HEADERS, 1, b"...", END_STREAM)))
    assert meter.unfinished == 0
    feed(meter, data(1, message(1_000_000, sent=5)))
    assert meter.unfinished == 0, "bytes of a stream that is gone are nobody's"


def test_calls_messages_and_frames_have_a_price() -> None:
    meter = opened(1)
    assert meter.calls == 1
    ping = frame(6, 0, bytes(8))
    assert feed(meter, ping * 3) == 3 * (len(ping) + FRAME_COST)
    empty = data(1, message(0) * 4)
    assert feed(meter, empty) == len(empty) + FRAME_COST + 4 * MESSAGE_COST
    feed(meter, frame(HEADERS, 1))
    assert meter.calls == 1, "trailers"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "preface"),
        (PREFACE[:-1] + b"x", "preface"),
        (PREFACE + frame(HEADERS, 1) + data(1, message(5, compressed=True)), "compressed"),
        (
            PREFACE
            + frame(HEADERS, 1)
            + frame(HEADERS, 3)
            + data(1, message(REQUEST_BYTES_MAX, sent=1))
            + data(3, message(LARGE_BYTES + 1, sent=1)),
            "large_messages",
        ),
        (
            PREFACE + b"".join(frame(HEADERS, 2 * each + 1) for each in range(4 * STREAMS_MAX + 1)),
            "http2_streams_max",
        ),
    ],
)
def test_what_no_client_of_ours_does_ends_the_connection(content: bytes, reason: str) -> None:
    with pytest.raises(Misbehaved) as caught:
        feed(Meter(), content)
    assert caught.value.why.word == reason


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_are_more_than_a_misbehaved_client(received: bytes, sent: bytes) -> None:
    meter = opened(1)
    try:
        feed(meter, received)
    except Misbehaved:
        pass
    meter.sent(memoryview(sent))
    assert meter.unfinished >= 0
