"""TLS records as they pass: counted one by one, however they are cut; hellos have a bound."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.tls_records import (
    ENCRYPTED,
    HANDSHAKE,
    HELLO_BYTES_MAX,
    HELLO_RECORDS_MAX,
    HelloTooLarge,
    TlsRecords,
)


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x301, len(payload)) + payload


def hello(length: int, sent: int | None = None) -> bytes:
    body = bytes([1]) + length.to_bytes(3, "big") + bytes(length if sent is None else sent)
    pieces = (body[at : at + 16384] for at in range(0, len(body), 16384))
    return b"".join(record(HANDSHAKE, piece) for piece in pieces)


@given(
    st.lists(st.tuples(st.sampled_from([20, 21, ENCRYPTED]), st.binary(max_size=40)), max_size=12),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_records_are_counted_however_they_are_cut(
    records: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(record(kind, payload) for kind, payload in records)
    subject, begun, at = TlsRecords(), 0, 0
    for size in (*cuts, len(data)):
        begun += subject.feed(memoryview(data)[at : at + size])
        at += size
    assert begun == len(records)


@given(st.binary(max_size=400), st.integers(1, 9))
def test_any_bytes_give_a_count_or_a_refusal(data: bytes, size: int) -> None:
    subject = TlsRecords()
    with suppress(HelloTooLarge):
        for at in range(0, len(data), size):
            assert subject.feed(memoryview(data)[at : at + size]) <= size


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (hello(512), False),
        (hello(HELLO_BYTES_MAX), False),
        (hello(512) + record(20, b"\x01") + hello(2000) + record(ENCRYPTED, bytes(60)), False),
        (hello(HELLO_BYTES_MAX + 1), True),
        (hello(131_000, sent=0), True),
        (hello(512) + record(20, b"\x01") + hello(131_000, 0), True),
        (
            record(HANDSHAKE, b"\x01") + record(HANDSHAKE, b"\x01\x00") + record(HANDSHAKE, b"\0"),
            True,
        ),
        (record(20, b"\x01") * HELLO_RECORDS_MAX, False),
        (record(20, b"\x01") * (HELLO_RECORDS_MAX + 1), True),
        (record(ENCRYPTED, bytes(18)) * 1000, False),
        # what is encrypted is nobody's hello, and early data hides none
        (
            hello(512) + record(ENCRYPTED, bytes([1, 255, 255, 255])) + record(HANDSHAKE, b"x"),
            False,
        ),
        (hello(512) + record(ENCRYPTED, bytes(60)) + hello(131_000, 0), True),
        ((hello(512) + record(ENCRYPTED, bytes(60))) * (HELLO_RECORDS_MAX + 1), True),
    ],
)
def test_hellos_have_a_bound(data: bytes, refused: bool) -> None:
    try:
        TlsRecords().feed(memoryview(data))
        found = False
    except HelloTooLarge:
        found = True
    assert found is refused
