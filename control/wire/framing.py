"""Fields of protobuf messages as bytes, for messages that are put together from parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

_LENGTH_DELIMITED = 2  # wire type of texts, bytes and messages
_FIXED_BYTES = {1: 8, 5: 4}  # by wire type
_SHORT = [bytes([number]) for number in range(0x80)]


def varint(number: int) -> bytes:
    """`number` is not negative."""
    if number < 0x80:
        return _SHORT[number]
    if number < 0x4000:  # most messages
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@cache
def tag(field: int) -> bytes:
    """Start of a field that has a length."""
    return varint(field << 3 | _LENGTH_DELIMITED)


def frame(field: int, payload: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    return tag(field) + varint(len(payload)) + payload


def fields_of(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes, with its start, of each field of a message that protobuf wrote."""
    at = 0
    while at < len(message):
        since = at
        start, at = _number(message, at)
        kind = start & 7
        if kind == _LENGTH_DELIMITED:
            length, at = _number(message, at)
            at += length
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            _, at = _number(message, at)
        yield start >> 3, message[since:at]


def _number(message: bytes, at: int) -> tuple[int, int]:
    """The varint that begins there, and the place behind it."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
