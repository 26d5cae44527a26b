"""TLS records as they pass: counted one by one, however they are cut; hellos have a bound."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.callers.refusals import CallRefusal
from control.server.front.meter import Misbehaved
from control.server.front.records import (
    ENCRYPTED,
    HANDSHAKE,
    HELLO_BYTES_MAX,
    HELLO_RECORDS_MAX,
    TINY_RECORDS_MAX,
    Records,
)


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x301, len(payload)) + payload


def hello(length: int, sent: int | None = None) -> bytes:
    body = bytes([1]) + length.to_bytes(3, "big") + bytes(length if sent is None else sent)
    pieces = (body[at : at + 16384] for at in range(0, len(body), 16384))
    return b"".join(record(HANDSHAKE, piece) for piece in pieces)


def refusal(data: bytes) -> CallRefusal | None:
    try:
        Records().feed(memoryview(data))
    except Misbehaved as exc:
        return exc.why
    return None


@given(
    st.lists(st.tuples(st.sampled_from([20, 21, ENCRYPTED]), st.binary(max_size=40)), max_size=12),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_records_are_counted_however_they_are_cut(
    records: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(record(kind, payload) for kind, payload in records)
    subject, begun, at = Records(), 0, 0
    for size in (*cuts, len(data)):
        begun += subject.feed(memoryview(data)[at : at + size])
        at += size
    assert begun == len(records)


@given(st.binary(max_size=400), st.integers(1, 9))
def test_any_bytes_give_a_count_or_a_refusal(data: bytes, size: int) -> None:
    subject = Records()
    with suppress(Misbehaved):
        for at in range(0, len(data), size):
            assert subject.feed(memoryview(data)[at : at + size]) <= size


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hello(512), None),
        (hello(HELLO_BYTES_MAX), None),
        (hello(512) + record(20, b"\x01") + hello(2000) + record(ENCRYPTED, bytes(60)), None),
        (hello(HELLO_BYTES_MAX + 1), CallRefusal.HELLO_TOO_LARGE),
        (hello(131_000, sent=0), CallRefusal.HELLO_TOO_LARGE),
        (hello(512) + record(20, b"\x01") + hello(131_000, 0), CallRefusal.HELLO_TOO_LARGE),
        (
            record(HANDSHAKE, b"\x01") + record(HANDSHAKE, b"\x01\x00") + record(HANDSHAKE, b"\0"),
            CallRefusal.HELLO_TOO_LARGE,
        ),
        (record(20, b"\x01") * HELLO_RECORDS_MAX, None),
        (record(20, b"\x01") * (HELLO_RECORDS_MAX + 1), CallRefusal.HELLO_TOO_LARGE),
        (record(ENCRYPTED, bytes(18)) * TINY_RECORDS_MAX, None),
        (record(ENCRYPTED, bytes(18)) * (TINY_RECORDS_MAX + 1), CallRefusal.TINY_RECORDS),
        (record(ENCRYPTED, bytes(26)) * 10 * TINY_RECORDS_MAX, None),
        # writers cut at 16 KiB, and the rest is as it is
        ((record(ENCRYPTED, bytes(16401)) + record(ENCRYPTED, bytes(18))) * 200, None),
        # what is encrypted is nobody's hello
        (hello(512) + record(ENCRYPTED, bytes([1, 255, 255, 255])) + record(HANDSHAKE, b"x"), None),
    ],
)
def test_small_records_and_hellos_have_a_bound(data: bytes, why: CallRefusal | None) -> None:
    assert refusal(data) is why
