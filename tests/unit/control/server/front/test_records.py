"""TLS records as they pass: small ones have a bound, and what the kit refuses is refused here."""

from __future__ import annotations

import struct

import pytest

from control.kit.tls_records import ENCRYPTED, HELLO_RECORDS_MAX
from control.server.callers.refusals import CallRefusal
from control.server.front.meter import Misbehaved
from control.server.front.records import TINY_RECORDS_MAX, Records


def record(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x301, len(payload)) + payload


def refusal(data: bytes) -> CallRefusal | None:
    try:
        Records().feed(memoryview(data))
    except Misbehaved as exc:
        return exc.why
    return None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (record(20, b"\x01") * (HELLO_RECORDS_MAX + 1), CallRefusal.HELLO_TOO_LARGE),
        (record(ENCRYPTED, bytes(18)) * TINY_RECORDS_MAX, None),
        (record(ENCRYPTED, bytes(18)) * (TINY_RECORDS_MAX + 1), CallRefusal.TINY_RECORDS),
        (record(ENCRYPTED, bytes(26)) * 10 * TINY_RECORDS_MAX, None),
        # writers cut at 16 KiB, and the rest is as it is
        ((record(ENCRYPTED, bytes(16401)) + record(ENCRYPTED, bytes(18))) * 200, None),
    ],
)
def test_small_records_and_hellos_have_a_bound(data: bytes, why: CallRefusal | None) -> None:
    assert refusal(data) is why
