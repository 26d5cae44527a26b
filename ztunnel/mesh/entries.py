"""Entries of the `RESOURCES` frame: the mesh, as the supervisor sends it to a worker. No I/O.

One entry: u8 op, u16 name length, name, u32 body length, body, all big-endian. The body is the
protobuf message as the control plane sent it: nothing is decoded on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from control.kit.errors import WireError

# One frame. A worker takes it apart over several turns of its loop (worker/intake.py).
CHUNK_BYTES_MAX = 64 * 1024
CHUNK_ENTRIES_MAX = 128
NAME_BYTES_MAX = 0xFFFF
# One resource alone may exceed a chunk; this is what still fits into a frame of ipc.py.
BODY_BYTES_MAX = 8 * 1024 * 1024

_HEAD = struct.Struct("!BH")
_LENGTH = struct.Struct("!I")


class Op(IntEnum):
    ADDRESS = 1
    POLICY = 2
    REMOVE_ADDRESS = 3
    REMOVE_POLICY = 4
    REJECTED_POLICY = 5  # the body, if any, is the message that was refused
    SNAPSHOT = 6  # everything known before this entry is the whole truth of that moment
    LATER = 7  # time has passed: the older span of the past may go (past.py)
    ON_DEMAND = 8  # from here on, only names that are KNOWN have been answered (known.py)
    ALL = 9  # from here on, everything comes unasked
    KNOWN = 10  # everything that this name leads to has come before
    UNKNOWN = 11  # it is to be asked for again
    NEW_SERVICE = 12  # an ADDRESS on which no decision so far could rest


@dataclass(frozen=True, slots=True)
class Entry:
    op: Op
    name: str = ""
    body: bytes = b""


def encode_entries(entries: Iterable[Entry]) -> bytes:
    parts: list[bytes] = []
    for entry in entries:
        name = entry.name.encode()
        if len(name) > NAME_BYTES_MAX or len(entry.body) > BODY_BYTES_MAX:
            raise WireError(f"resource {entry.name[:64]!r} is too large")
        parts += (_HEAD.pack(entry.op, len(name)), name, _LENGTH.pack(len(entry.body)), entry.body)
    return b"".join(parts)


def decode_entries(payload: bytes) -> list[Entry]:
    """WireError unless the payload is a whole number of well-formed entries."""
    entries: list[Entry] = []
    offset = 0
    while offset < len(payload):
        try:
            op, name_length = _HEAD.unpack_from(payload, offset)
            offset += _HEAD.size
            name = payload[offset : offset + name_length].decode()
            offset += name_length
            (body_length,) = _LENGTH.unpack_from(payload, offset)
            offset += _LENGTH.size
            body = payload[offset : offset + body_length]
            offset += body_length
            entries.append(Entry(Op(op), name, body))
        except (struct.error, ValueError) as exc:
            raise WireError(f"a broken resource entry: {exc}") from exc
    if offset != len(payload):
        raise WireError("a cut resource entry")
    return entries


def chunks(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Payloads of bounded size and entry count, in order."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        cost = len(entry.name) + len(entry.body)
        if batch and (size + cost > CHUNK_BYTES_MAX or len(batch) >= CHUNK_ENTRIES_MAX):
            yield encode_entries(batch)
            batch, size = [], 0
        batch.append(entry)
        size += cost
    if batch:
        yield encode_entries(batch)
