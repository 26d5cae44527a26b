"""HPACK: through the hpack library, or from memory when a block repeats an earlier one.

The streams of a tunnel ask for nearly the same. Nearly all of a block are references to the table,
and the rest are literals that do not enter it. Such a block leaves the table as it is: until one of
another kind passes, the same bytes mean the same fields, in both directions.

This module knows the form of header blocks; `headers.py` knows requests and responses.
"""

from __future__ import annotations

import re
from typing import Final

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.frames import HEADER_TABLE_DEFAULT
from ztunnel.hbone.headers import RawHeaders, Request, Response, parse_request, parse_response

Fields = tuple[tuple[str, str], ...]

# Different requests (or answers) of one tunnel: ports of a pod, or destinations behind a waypoint.
REMEMBERED_MAX: Final = 64
# Three table size updates: two announce any change (RFC 7541 section 4.2), and 64 KiB of them would
# take 130 ms.
_SIZE_UPDATES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")
# References to fields at table places below 127: a byte each (RFC 7541 section 6.1).
_references: Final = re.compile(rb"[\x80-\xfe]{1,32}").match
_only_references: Final = re.compile(rb"[\x80-\xfe]{1,32}").fullmatch
# The longest string with its length in one byte and no Huffman code.
_SHORT_MAX: Final = 126
_SHORT: Final = tuple(bytes([size]) for size in range(_SHORT_MAX + 1))
_literal_heads: dict[str, bytes] = {}
_FIELD_EXTRA_BYTES: Final = 32  # the size of a field beyond its text (RFC 7541 section 4.1)
_LITERAL_EXTRA: Final = _FIELD_EXTRA_BYTES - 3  # three bytes of a short literal are not text

_NO_FIELDS: Final[RawHeaders] = []


class Head:
    """Fields that a run of references stands for, and the request or response that they make."""

    __slots__ = ("_request", "_response", "raw", "size")

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw
        self.size = _size(raw)
        self._request: Request | None = None
        self._response: Response | None = None

    def request(self) -> Request:
        found = self._request
        if found is None:
            found = self._request = parse_request(self.raw)
        return found

    def response(self) -> Response:
        found = self._response
        if found is None:
            found = self._response = parse_response(self.raw)
        return found


class Block:
    """A decoded header block: fields known from before, and the `rest` that only this block has."""

    __slots__ = ("fields", "head", "rest")

    def __init__(self, head: Head, rest: RawHeaders) -> None:
        self.head = head
        self.rest = rest
        self.fields = len(head.raw) + len(rest)

    def raw(self) -> RawHeaders:
        return self.head.raw + self.rest if self.rest else self.head.raw

    def request(self) -> Request:
        """The request that the block is. Raises MalformedError."""
        if not self.rest:
            return self.head.request()
        for name, _ in self.rest:
            if name.startswith(b":"):  # the head alone is only a part of the request
                return parse_request(self.raw())
        return self.head.request().with_fields(self.rest)

    def response(self) -> Response:
        """The response that the block is. Raises MalformedError."""
        return parse_response(self.raw()) if self.rest else self.head.response()


class HeaderCodec:
    """Compression state of one connection, for both directions."""

    __slots__ = ("_decoder", "_encoded", "_encoder", "_heads", "_list_bytes_max", "_table_bytes")

    def __init__(self, header_list_bytes: int, header_table_bytes: int) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder(max_header_list_size=header_list_bytes)
        self._list_bytes_max = header_list_bytes
        self._table_bytes = header_table_bytes
        self._encoded: dict[tuple[str | int, Fields], bytes] = {}
        self._heads: dict[bytes, Head] = {}
        # The peer may use the default until it has acknowledged our SETTINGS.
        self._decoder.max_allowed_table_size = max(header_table_bytes, HEADER_TABLE_DEFAULT)

    def settings_acknowledged(self) -> None:
        """Hold the peer to our table size."""
        self._heads.clear()  # the next block must say that the table shrinks
        self._decoder.max_allowed_table_size = self._table_bytes

    def limit_encoder(self, peer_table_bytes: int) -> None:
        """Use at most the table that the peer allows, and never more than the default."""
        table_bytes = min(peer_table_bytes, HEADER_TABLE_DEFAULT)
        if table_bytes != self._encoder.header_table_size:  # hpack loses a change that is set twice
            self._encoded.clear()
            self._encoder.header_table_size = table_bytes
            changes = self._encoder.table_size_changes
            if len(changes) > 2:  # RFC 7541 section 4.2: the smallest, then the last
                changes[:] = [min(changes), changes[-1]]

    # -- out -------------------------------------------------------------------------------------

    def encode_request(self, authority: str, fields: Fields, once: Fields) -> bytes:
        """Block of a CONNECT request. `fields` are likely to come again. `once` differ in every
        request, so they never enter the table: they would only push useful ones out."""
        known = self._encoded.get((authority, fields))
        if known is None:
            pseudo = [(b":method", b"CONNECT"), (b":authority", _raw(authority))]
            known = self._encode(authority, pseudo, fields)
        for name, value in once:
            raw = value.encode("latin-1", "replace")
            size = len(raw)
            head = _literal_heads.get(name) or _literal_head(name)
            known += head + (_SHORT[size] if size <= _SHORT_MAX else _length(raw)) + raw
        return known

    def encode_response(self, status: int, fields: Fields) -> bytes:
        """Block of a response."""
        known = self._encoded.get((status, fields))
        return known or self._encode(status, [(b":status", b"%d" % status)], fields)

    def _encode(self, what: str | int, pseudo: RawHeaders, fields: Fields) -> bytes:
        raw = pseudo + [(_raw(name), _raw(value)) for name, value in fields]
        # Huffman would save 30 bytes of a request and take 35 microseconds, both sides together.
        block: bytes = self._encoder.encode(raw, huffman=False)
        if len(block) == len(raw) and _only_references(block):
            if len(self._encoded) >= REMEMBERED_MAX:
                self._encoded.clear()
            self._encoded[what, fields] = block
        else:
            self._encoded.clear()  # the table has changed
        return block

    # -- in --------------------------------------------------------------------------------------

    def decode(self, block: bytes) -> Block:
        """Decode a block. Raises ConnectionBroken: the tables of the two sides would differ."""
        references = _references(block)
        if references is not None:
            at = references.end()
            rest = _literals(block, at) if at < len(block) else _NO_FIELDS
            if rest is not None:
                head = self._heads.get(block[:at]) or self._learn(block, at)
                if head.size + len(block) - at + _LITERAL_EXTRA * len(rest) > self._list_bytes_max:
                    raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "header list too large")
                return Block(head, rest)
        self._heads.clear()  # this one may change the table
        return Block(Head(self._decode(block)), [])

    def _learn(self, block: bytes, at: int) -> Head:
        if len(self._heads) >= REMEMBERED_MAX:
            self._heads.clear()
        head = self._heads[block[:at]] = Head(self._decode(block[:at]))
        return head

    def _decode(self, block: bytes) -> RawHeaders:
        if _SIZE_UPDATES.match(block):
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, "too many table size updates")
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "header list too large") from None
        except HPACKError as exc:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(exc)[:80]) from None


def _literal_head(name: str) -> bytes:
    """A field that never enters the table, up to its value (RFC 7541 section 6.2.3)."""
    raw = _raw(name)
    if len(_literal_heads) >= REMEMBERED_MAX:
        _literal_heads.clear()
    head = _literal_heads[name] = b"\x10" + _length(raw) + raw
    return head


def _length(text: bytes) -> bytes:
    """Length of a string that is not Huffman coded (RFC 7541 section 5.2)."""
    size = len(text)
    if size <= _SHORT_MAX:
        return b"%c" % size
    out = bytearray(b"\x7f")
    size -= 127
    while size >= 128:
        out.append(0x80 | size & 0x7F)
        size >>= 7
    out.append(size)
    return bytes(out)


def _literals(block: bytes, at: int) -> RawHeaders | None:
    """Fields from `at` on, if all of them are short plain literals, with their names, that do not
    enter the table. None: decode them with the library."""
    found: RawHeaders = []
    end = len(block)
    while at < end:
        if block[at] & 0xEF or at + 2 >= end:  # 0x00: not indexed, 0x10: never to be indexed
            return None
        name_at = at + 2
        value_at = name_at + block[at + 1] + 1
        if block[at + 1] > _SHORT_MAX or value_at > end:
            return None
        value_bytes = block[value_at - 1]
        at = value_at + value_bytes
        if value_bytes > _SHORT_MAX or at > end:
            return None
        found.append((block[name_at : value_at - 1], block[value_at:at]))
    return found


def _size(raw: RawHeaders) -> int:
    """Size of a header list as RFC 7541 section 4.1 counts it."""
    size = 0
    for name, value in raw:
        size += len(name) + len(value) + _FIELD_EXTRA_BYTES
    return size


def _raw(text: str) -> bytes:
    return text.encode("latin-1", "replace")
