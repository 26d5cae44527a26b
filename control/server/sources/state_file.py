"""The last good state of a source, as one file: written whole, read whole, or not at all; and what
changed since, appended to a file beside it, so that writing costs what changes.

It holds objects as they were read, so a start needs neither the source nor its readers. A file that
is cut, changed, of another format or from another source is passed over, with a line that says why.
Its content is as old as its time of change says: a state that is still the current one is touched,
not written again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from control.kit.errors import ConfigError
from control.kit.files import write_atomic
from control.kit.log import event
from control.server.sources.changes_file import CHUNK, ChangesFile, ChangesRecord
from control.server.sources.inventory import Changed
from control.server.sources.objects import (
    KIND_FIELDS,
    AnyObject,
    Key,
    Objects,
    collect,
)

log = logging.getLogger("source")

FORMAT: Final = 2  # a new number when the same fields come to mean something else
# Some 8 MB for 50,000 pods; the file and its successor have to fit on a volume of 64 MiB.
FILE_BYTES_MAX: Final = 24 * 1024 * 1024
CONTENT_BYTES_MAX: Final = 512 * 1024 * 1024  # unpacked
# Changes are appended until they are half as large; then the state is written whole.
CHANGES_SHARE: Final = 2
CHANGES_BYTES_MIN: Final = 256 * 1024
CHANGES_SUFFIX: Final = "-changes"
_HEAD_BYTES_MAX: Final = 4096
_SIZE_BYTES: Final = 4  # stand before a chunk
_INT_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class KeptState:
    """`objects` in any order. `current_at`: until then this was what the source said."""

    objects: Objects
    current_at: datetime


class _StateHead(msgspec.Struct):
    """The first line; `digest` is that of all that follows."""

    format: int
    shape: str
    origin: str
    digest: str
    objects: int


class Unusable(ConfigError):
    """A file that is not a state of this source."""

    reason = "state_file"


class StateFile:
    """`origin` is the place that the objects are from; states of another one are not taken."""

    def __init__(self, path: Path, origin: str) -> None:
        self.path = path
        self._origin = origin
        self._changes = ChangesFile(path.with_name(path.name + CHANGES_SUFFIX))
        self._base, self._base_bytes = "", 0  # the state that changes can be appended to
        self._told = ""  # the failure that was logged last, until something works again

    def load(self) -> KeptState | None:
        """The state that is kept. None: there is none that can be used."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
                changed_s = os.fstat(file.fileno()).st_mtime
            return KeptState(
                self._changed(*self._read(data)), datetime.fromtimestamp(changed_s, UTC)
            )
        except FileNotFoundError:
            return None
        except (Unusable, OSError) as exc:
            event(log, logging.ERROR, "source.state_unusable", file=self.path, error=exc)
            return None

    def count(self) -> int:
        """The number of objects in the state that is kept, without reading it; about that."""
        try:
            with open(self.path, "rb") as file:
                return self._head(file.readline(_HEAD_BYTES_MAX)).objects
        except (Unusable, OSError):
            return 0

    def save(self, objects: Objects, now: datetime) -> bool:
        """Put this state in place of the one before; False if that failed. For a thread: it takes
        a second or two for 50,000 pods, in small steps."""
        self._base = ""
        try:
            data, base = self._written(objects)
            write_atomic(self.path, data, 0o600)
            os.utime(self.path, (now.timestamp(), now.timestamp()))
            self._changes.begin(base)
        except (Unusable, OSError) as exc:
            self._failed(exc)
            return False
        self._told = ""
        self._base, self._base_bytes = base, len(data)
        return True

    def save_all(self, found: Iterable[AnyObject], now: datetime) -> bool:
        """As `save`, of objects in any order, which they keep: a thread that sorts 50,000 lets
        nobody else in for a tenth of a second."""
        kinds: dict[str, list[AnyObject]] = {kind: [] for kind in KIND_FIELDS}
        for each in found:
            kinds[each.meta.key.kind].append(each)
        return self.save(Objects.of({kind: tuple(each) for kind, each in kinds.items()}), now)

    def add(self, changed: Changed, now: datetime) -> bool:
        """Append what changed since; False if the state has to be saved whole."""
        if not self._base:
            return False
        if self._changes.size > max(self._base_bytes // CHANGES_SHARE, CHANGES_BYTES_MIN):
            return False
        try:
            self._changes.add(changed, _encoded)
            os.utime(self.path, (now.timestamp(), now.timestamp()))
        except OSError as exc:
            self._base = ""  # the end of the file may be half a record
            self._failed(exc)
            return False
        return True

    def touch(self, now: datetime) -> None:
        """The state that is kept is what the source says now."""
        try:
            os.utime(self.path, (now.timestamp(), now.timestamp()))
        except OSError as exc:
            self._failed(exc)

    def _failed(self, exc: Exception) -> None:
        if str(exc) != self._told:
            self._told = str(exc)
            event(log, logging.ERROR, "source.not_kept", file=self.path, error=exc)

    def _written(self, objects: Objects) -> tuple[bytes, str]:
        """The file, and the digest of its body."""
        packing = zlib.compressobj(1)
        body, size = [], 0
        for chunk in _chunks(objects):
            size += len(chunk)
            body.append(packing.compress(len(chunk).to_bytes(_SIZE_BYTES, "big") + chunk))
        body.append(packing.flush())
        packed = b"".join(body)
        head = _StateHead(FORMAT, shape(), self._origin, _digest(packed), len(objects))
        data = msgspec.json.encode(head) + b"\n" + packed
        if len(data) > FILE_BYTES_MAX or size > CONTENT_BYTES_MAX:
            raise Unusable(f"{len(data)} bytes, {size} unpacked: too much to keep")
        return data, head.digest

    def _changed(self, objects: Objects, base: str) -> Objects:
        """The state with what was appended."""
        found: dict[Key, AnyObject | None] = {}
        try:
            for each in self._changes.read(base, FILE_BYTES_MAX):
                found |= each
        except (OSError, msgspec.DecodeError, ValueError, TypeError) as exc:
            event(log, logging.ERROR, "source.state_unusable", file=self.path, error=exc)
        if not found:
            return objects
        whole = {**{each.meta.key: each for each in objects}, **found}
        return collect({key: each for key, each in whole.items() if each is not None})

    def _head(self, line: bytes) -> _StateHead:
        try:
            head = msgspec.json.decode(line[:_HEAD_BYTES_MAX], type=_StateHead)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Unusable("not a state that a control plane wrote") from exc
        if (head.format, head.shape) != (FORMAT, shape()):
            raise Unusable("written by another version of the control plane")
        if head.origin != self._origin:
            raise Unusable(f"the state of another source: {head.origin}")
        return head

    def _read(self, data: bytes) -> tuple[Objects, str]:
        if len(data) > FILE_BYTES_MAX:
            raise Unusable(f"more than {FILE_BYTES_MAX} bytes")
        line, _, packed = data.partition(b"\n")
        head = self._head(line)
        if head.digest != _digest(packed):
            raise Unusable("cut or changed")
        try:
            return _joined(packed), head.digest
        except (zlib.error, msgspec.DecodeError, ValueError, TypeError) as exc:
            raise Unusable(f"cannot be read: {exc}") from exc


def _joined(packed: bytes) -> Objects:
    unpacking = zlib.decompressobj()
    content = memoryview(unpacking.decompress(packed, CONTENT_BYTES_MAX))
    if not unpacking.eof:
        raise Unusable("cut, or too large")
    found: dict[str, list[Any]] = {each.name: [] for each in fields(Objects)}
    decoder = msgspec.msgpack.Decoder(Objects)
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + _SIZE_BYTES], "big")
        at += _SIZE_BYTES
        part = decoder.decode(content[at : at + size])
        at += size
        for name, objects in found.items():
            objects += getattr(part, name)
    return Objects(**{name: tuple(each) for name, each in found.items()})


def _chunks(objects: Objects) -> Iterator[bytes]:
    encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
    for each in fields(Objects):
        found = getattr(objects, each.name)
        for start in range(0, len(found), CHUNK):
            part = found[start : start + CHUNK]
            yield _written_chunk(encoder, Objects(**{each.name: part}))


def _encoded(record: ChangesRecord) -> bytes:
    return _written_chunk(msgspec.msgpack.Encoder(enc_hook=_plain), record)


def _written_chunk(encoder: msgspec.msgpack.Encoder, chunk: Objects | ChangesRecord) -> bytes:
    try:
        return encoder.encode(chunk)
    except (UnicodeEncodeError, OverflowError):
        if isinstance(chunk, ChangesRecord):
            put, gone = _writable(chunk.put), _writable(chunk.gone)
            return encoder.encode(ChangesRecord(put, gone, chunk.more))
        return encoder.encode(_writable(chunk))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # a proxy
        return dict(value)
    raise NotImplementedError(type(value).__name__)


def _writable(value: Any) -> Any:
    """The same without texts and numbers that no file format takes: a manifest may hold any."""
    found = value
    if isinstance(value, str):
        found = value.encode(errors="replace").decode()
    elif isinstance(value, int) and not isinstance(value, bool):
        found = max(-_INT_MAX, min(value, _INT_MAX))
    elif isinstance(value, tuple | list):
        found = tuple(map(_writable, value))
    elif isinstance(value, Mapping):
        found = {_writable(key): _writable(each) for key, each in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        mine = {each.name: _writable(getattr(value, each.name)) for each in fields(value)}
        found = replace(value, **mine)
    return found


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


@functools.cache
def shape() -> str:
    """A word for names and types of all fields: another one when any of them changes."""
    return _digest(json.dumps(_bare(msgspec.json.schema(Objects)), sort_keys=True).encode())


def _bare(schema: Any) -> Any:
    """The schema without its words for people."""
    if isinstance(schema, dict):
        return {key: _bare(each) for key, each in schema.items() if key != "description"}
    return [_bare(each) for each in schema] if isinstance(schema, list) else schema
