"""Reads the requests of clients, and what nodes that return bring along once for all of them.

A client that comes back names all that it holds, unless it sends sums: 4 MB with 50,000 pods, some
50 ms to read and to compare. After a restart of the control plane all nodes come back with the same
list, each in an order of its own: maps have none. So the lists that were read are known by a digest
of their entries that knows no order either, and one that is the same is not read again.

That digest is the sum of the entries' hashes, which are keyed with a secret of this process: nobody
can make two lists of one sum.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.kit.slices import done, portions
from control.server.xds.shelf import HeldVersions
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE

VERSIONS_FIELD = 5  # DeltaDiscoveryRequest.initial_resource_versions
NONCE_FIELD = 6  # DeltaDiscoveryRequest.response_nonce; it follows them in an answer
WORTH_BYTES = 64 * 1024  # a list below is as well read
REMEMBERED_TYPES = (ADDRESS_TYPE, AUTHORIZATION_TYPE)
# Lists of one type: nodes that were in step, and some that were not.
LISTS_MAX = 4

_WINDOW_BYTES = 32 * 1024  # some 400 entries of a list: 0.2 ms. A larger one is foreign

_LENGTH_DELIMITED = 2
_VARINT_BYTES_MAX = 10
# Entries with versions of ours, roughly: length, name and 16 digits. `_is_entry` looks closer.
_ENTRY = re.compile(rb"\*(?:[\x00-\x7f]|[\x80-\xff].)\n.[^\x12]*\x12\x10.{16}", re.DOTALL)
_VERSION_BYTES = 18  # with its tag and length
_SHORT_BYTES = 130  # an entry below has lengths of one byte

_Digest: TypeAlias = tuple[int, int]  # number of entries, sum of their hashes


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """`message` is without the versions, which are in `held`: the same object for equal lists."""

    message: pb.DeltaDiscoveryRequest
    held: Mapping[str, str]


class Requests:
    def __init__(self) -> None:
        self._remembered: dict[str, dict[_Digest, HeldVersions]] = {}

    def read(self, data: bytes) -> ReadRequest:
        """Raises WireError."""
        return done(self.steps(data))

    def steps(self, data: bytes) -> Generator[None, None, ReadRequest]:
        """As `read`, in steps; one at a time, or the same list is read by each."""
        start = _start_of_versions(data) if len(data) >= WORTH_BYTES else None
        if start is None:
            return _split(_parse(data))
        entries, end, hashes = yield from _entries(data, start)
        if not _ends_with_nonce(data, end, entries):
            return _split(_parse(data))
        head = _parse(data[:start] + data[end:])
        held = None
        if head.type_url in REMEMBERED_TYPES:
            held = yield from self._look_up(head.type_url, entries, hashes)
        return _split(_parse(data)) if held is None else ReadRequest(head, held)

    def _look_up(
        self, type_url: str, entries: Sequence[bytes], hashes: int
    ) -> Generator[None, None, HeldVersions | None]:
        """Names and versions; None if there is anything but plain entries, each of another name."""
        digest = len(entries), hashes
        known = self._remembered.setdefault(type_url, {})
        held = known.get(digest)
        if held is None:
            held = yield from _read_entries(entries)
            if held is not None:
                if len(known) >= LISTS_MAX:
                    del known[next(iter(known))]
                known[digest] = held
        return held

    def forget(self) -> None:
        self._remembered.clear()


def _entries(data: bytes, start: int) -> Generator[None, None, tuple[list[bytes], int, int]]:
    """Entries without a gap, the offset behind them, and the sum of their hashes."""
    entries: list[bytes] = []
    at, hashes = start, 0
    while at < len(data):
        found: list[bytes] = _ENTRY.findall(data, at, at + _WINDOW_BYTES)
        end = at + sum(map(len, found))
        if not found or not data.endswith(found[-1], 0, end):
            break
        entries += found
        hashes += sum(map(hash, found))
        at = end
        yield
    return entries, at, hashes


def _read_entries(entries: Sequence[bytes]) -> Generator[None, None, HeldVersions | None]:
    held = HeldVersions()
    try:
        for part in portions(entries):
            for each in part:
                since = _start_of_name(each)
                held[each[since:-_VERSION_BYTES].decode()] = each[-16:].decode()
            yield
    except (UnicodeDecodeError, ValueError):
        return None
    return held if len(held) == len(entries) else None  # else the order of two would count


def _start_of_name(entry: bytes) -> int:
    """Offset of an entry's name. ValueError: its lengths are not those of one name and version."""
    size = len(entry)
    if size < _SHORT_BYTES and entry[1] == size - 2 and entry[3] == size - 4 - _VERSION_BYTES:
        return 4
    length, at = _varint(entry, 1)
    name, since = _varint(entry, at + 1)
    if at + length != size or since + name + _VERSION_BYTES != size or entry[at] != b"\n"[0]:
        raise ValueError("not a plain entry")
    return since


def _ends_with_nonce(data: bytes, end: int, entries: Sequence[bytes]) -> bool:
    """True if nothing follows the entries, which end here, or a nonce alone."""
    if not entries or not data.endswith(entries[-1], 0, end):  # there is a gap among them
        return False
    rest = len(data) - end
    return not rest or (
        1 < rest < _SHORT_BYTES
        and data[end] == NONCE_FIELD << 3 | _LENGTH_DELIMITED
        and data[end + 1] == rest - 2
    )


def _parse(data: bytes) -> pb.DeltaDiscoveryRequest:
    try:
        return pb.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as exc:
        raise WireError("not a delta discovery request") from exc


def _split(message: pb.DeltaDiscoveryRequest) -> ReadRequest:
    held = dict(message.initial_resource_versions)
    message.ClearField("initial_resource_versions")
    return ReadRequest(message, held)


def _start_of_versions(data: bytes) -> int | None:
    """Offset of the first version; None if something unusual comes before."""
    at = 0
    while at < len(data):
        tag = data[at]
        if tag == VERSIONS_FIELD << 3 | _LENGTH_DELIMITED:
            return at
        if tag & 0x87 != _LENGTH_DELIMITED:  # or a field of a larger number
            return None
        length, at = _varint(data, at + 1)
        at += length
    return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Its value and the offset behind it; if it is none, an offset behind everything."""
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return 0, len(data)
