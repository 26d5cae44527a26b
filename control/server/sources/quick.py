"""Content of files in which everything is right, read cheaply; whoever needs words about what is
wrong reads with care. Pure.

Documents are told apart without a parser, and one that the file had before is not read again. Of
JSON only what the readers look at is decoded, without lines: for a fault there are none to tell.
Policies are read by a decoder of their own, which speaks of a key that stands twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from control.server.sources.alike import own_of
from control.server.sources.entries import FileEntry, items_of, read_entry
from control.server.sources.kinds import KINDS, POLICY_KINDS, SECURITY_GROUP
from control.server.sources.narrow import document_of
from control.server.sources.objects import PodObject
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader
from control.server.sources.strict import strict_document
from control.server.sources.yaml_text import Fields, parts_of, read_part

_WORDS = (*sorted(POLICY_KINDS), SECURITY_GROUP)


@dataclass(frozen=True, slots=True)
class FilePart:
    """One document, or one item of a list. `ignored` are kinds that mean nothing here."""

    entries: tuple[FileEntry, ...] = ()
    ignored: tuple[str, ...] = ()


class _Header(msgspec.Struct):
    kind: str
    version: str = msgspec.field(name="apiVersion")


class _List(msgspec.Struct):
    kind: str
    items: list[msgspec.Raw]


_START = re.compile(r"(?:---(?=\s))?\s*")
_HEADER = msgspec.json.Decoder(_Header)
_LIST = msgspec.json.Decoder(_List)


def read_quickly(
    file: str, data: bytes, before: Mapping[bytes, FilePart]
) -> dict[bytes, FilePart] | None:
    """Each part of a file, by a digest of what it is and where it stands; None if something may be
    wrong. `before`: the parts that it had when it was last read."""
    found: dict[bytes, FilePart] = {}
    try:
        for part, line in parts_of(data):
            for piece, at in _pieces(part, line):
                digest = _digest(piece, at)
                if digest in found:
                    return None
                found[digest] = before.get(digest) or _read(file, piece, at)
    except (Invalid, _Unsure):
        return None
    return found


class _Unsure(Exception):
    """Something may be wrong."""


def _digest(piece: str, line: int) -> bytes:
    return hashlib.blake2b(piece.encode(), digest_size=16, key=line.to_bytes(4, "big")).digest()


def _pieces(part: str, line: int) -> Iterator[tuple[str, int]]:
    """A document; if it is a list in JSON, its items."""
    text, began = _body(part, line)
    if not text.startswith("{"):
        yield part, line
        return
    line = began
    items = _items(text.encode()) if '"items"' in text else None
    if items is None:
        yield text, line
        return
    counted = since = 0
    for item in items:
        at = text.index(item, since)
        line += text.count("\n", counted, at)
        counted, since = at, at + len(item)
        yield item, line


def _body(part: str, line: int) -> tuple[str, int]:
    """A document without the mark at its start, and its line."""
    at = _START.match(part)
    since = at.end() if at is not None else 0
    return part[since:], line + part.count("\n", 0, since)


def _items(text: bytes) -> list[str] | None:
    try:
        found = _LIST.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not found.kind.endswith("List"):
        return None
    return [bytes(each).decode() for each in found.items]


def _read(file: str, piece: str, line: int) -> FilePart:
    if piece.startswith("{") and (found := _read_json(file, piece, line)) is not None:
        return found
    values = [value for each in read_part(piece, line) for value, _ in items_of(each)]
    documents = [value for value in values if isinstance(value, Fields)]
    if len(documents) < len(values):
        raise _Unsure
    return _part(file, documents)


def _read_json(file: str, piece: str, line: int) -> FilePart | None:
    """None: not JSON, or of a kind that is not read here."""
    data = piece.encode()
    try:
        header = _HEADER.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    kind = KINDS.get(header.kind)
    if kind is None or header.version not in kind.api_versions:
        return None
    if any(word in piece for word in _WORDS):  # no decoder speaks of a key that stands twice
        document = strict_document(piece)
        return None if document is None else _placed(file, document, line)
    own = own_of(data) if header.kind == "Pod" else None
    pod = None if own is None else own.pod(file, line)
    if pod is not None:
        return FilePart((FileEntry(pod.meta.key, line, pod),))
    document = document_of(header.kind, data)
    if document is None:
        return None
    document["apiVersion"] = header.version
    found = _placed(file, document, line)
    for each in found.entries:
        if own is not None and isinstance(each.object, PodObject):
            own.remember(each.object)
    return found


def _placed(file: str, document: Fields, line: int) -> FilePart:
    document.line = line
    return _part(file, [document])


def _part(file: str, documents: list[Fields]) -> FilePart:
    entries, ignored = [], []
    for document in documents:
        reader = Reader(document)
        entry = read_entry(file, reader, 0)  # the position names only what is wrong
        if entry is None:
            ignored.append(reader.text("kind"))
        elif entry.why is not None:
            raise _Unsure
        else:
            entries.append(entry)
    return FilePart(tuple(entries), tuple(ignored))
