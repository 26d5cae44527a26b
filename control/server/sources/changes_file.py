"""Changes of a state that was written whole, appended one after the other: a small file beside it.

It belongs to one state, by digest: what is left of it when a new state is written counts for
nothing. A record that is cut, as after a crash, ends it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from control.kit.slices import portions
from control.server.sources.inventory import Changed
from control.server.sources.objects import AnyObject, Key, Objects, collect

CHUNK: Final = 200  # objects that are packed at once; some 2 ms
_DIGEST_BYTES: Final = 16
_SIZE_BYTES: Final = 4


class ChangesRecord(msgspec.Struct, array_like=True):
    """`put` is what came or changed, `gone` the keys of what went. `more`: the change goes on in
    the next record, and counts for nothing without its last."""

    put: Objects
    gone: list[tuple[str, str, str]]
    more: bool = False


Encode: TypeAlias = Callable[[ChangesRecord], bytes]
_DECODER = msgspec.msgpack.Decoder(ChangesRecord)


class ChangesFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0  # bytes that were appended here

    def begin(self, base: str) -> None:
        """An empty one for a state that was just written. Raises OSError."""
        with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(base.encode() + b"\n")
        self.size = 0

    def add(self, changed: Changed, encode: Encode) -> None:
        """Append what changed, and see it on disk. Raises OSError. In a thread it lets others in
        after each record."""
        size, left = 0, len(changed)
        with open(self._path, "ab") as file:
            for part in portions(changed.items(), CHUNK):
                left -= len(part)
                payload = encode(_record(part, more=left > 0))
                record = _digest(payload) + len(payload).to_bytes(_SIZE_BYTES, "big") + payload
                file.write(record)
                size += len(record)
            file.flush()
            os.fsync(file.fileno())
        self.size += size

    def read(self, base: str, bytes_max: int) -> Iterator[Changed]:
        """The changes since this state, in order, as far as they can be read. Raises OSError."""
        try:
            data = self._path.read_bytes()[:bytes_max]
        except FileNotFoundError:
            return
        head, _, data = data.partition(b"\n")
        at, found = 0, dict[Key, AnyObject | None]()
        while head == base.encode() and at < len(data):
            since = at + _DIGEST_BYTES + _SIZE_BYTES
            end = since + int.from_bytes(data[at + _DIGEST_BYTES : since], "big")
            payload = data[since:end]
            if len(payload) < end - since or _digest(payload) != data[at : at + _DIGEST_BYTES]:
                return
            record = _DECODER.decode(payload)
            found |= {each.meta.key: each for each in record.put}
            found |= {Key(*key): None for key in record.gone}
            if not record.more:
                yield found
                found = {}
            at = end


def _record(part: Sequence[tuple[Key, AnyObject | None]], *, more: bool) -> ChangesRecord:
    put = collect({key: each for key, each in part if each is not None})
    return ChangesRecord(put, [key for key, each in part if each is None], more)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
