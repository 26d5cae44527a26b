"""HPACK through the hpack library, without it where a block says what an earlier one said.

Streams of one tunnel ask for nearly the same, so nearly all of a block are references to the table
and the rest are literals that do not enter it. Such a block changes nothing: as long as no other
kind of block has passed, the same bytes mean the same fields, in both directions. It knows the
form of header blocks; which lists are a request or an answer is for `headers.py`.
"""

from __future__ import annotations

import re
from typing import Final

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.frames import HEADER_TABLE_DEFAULT
from ztunnel.hbone.headers import RawHeaders, Request, Response, parse_request, parse_response

Fields = tuple[tuple[str, str], ...]

# Kinds of requests (or answers) of one tunnel: ports of a pod, or destinations behind a waypoint.
REMEMBERED_MAX: Final = 64
# Two announce any change (RFC 7541 section 4.2); 64 KiB of them would take 130 ms.
_SIZE_UPDATES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")
# Fields that are in the table, at places below 127: a byte each (RFC 7541 section 6.1).
_references: Final = re.compile(rb"[\x80-\xfe]{1,32}").match
_only_references: Final = re.compile(rb"[\x80-\xfe]{1,32}").fullmatch
# Longer strings have their length in more bytes, or are Huffman coded.
_SHORT_MAX: Final = 126
_SHORT: Final = tuple(bytes([size]) for size in range(_SHORT_MAX + 1))
_literal_heads: dict[str, bytes] = {}
_FIELD_EXTRA_BYTES: Final = 32  # what a field counts beyond its letters (RFC 7541 section 4.1)
_LITERAL_EXTRA: Final = _FIELD_EXTRA_BYTES - 3  # three bytes of a short literal are no letters


_NO_FIELDS: Final[RawHeaders] = []


class Head:
    """The fields that a run of references stands for, and what they say once somebody asked."""

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
    """A decoded header block: what was known already, and what is only in this one."""

    __slots__ = ("fields", "head", "rest")

    def __init__(self, head: Head, rest: RawHeaders) -> None:
        self.head = head
        self.rest = rest
        self.fields = len(head.raw) + len(rest)

    def raw(self) -> RawHeaders:
        return self.head.raw + self.rest if self.rest else self.head.raw

    def request(self) -> Request:
        """MalformedError: it is none."""
        if not self.rest:
            return self.head.request()
        for name, _ in self.rest:
            if name.startswith(b":"):  # the head alone is only a part of the request
                return parse_request(self.raw())
        return self.head.request().with_fields(self.rest)

    def response(self) -> Response:
        return parse_response(self.raw()) if self.rest else self.head.response()


class HeaderCodec:
    """The two compression states of one connection."""

    __slots__ = ("_decoder", "_encoded", "_encoder", "_heads", "_list_bytes_max", "_table_bytes")

    def __init__(self, header_list_bytes: int, header_table_bytes: int) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder(max_header_list_size=header_list_bytes)
        self._list_bytes_max = header_list_bytes
        self._table_bytes = header_table_bytes
        self._encoded: dict[tuple[str | int, Fields], bytes] = {}
        self._heads: dict[bytes, Head] = {}
        # A smaller table binds the peer only once it has acknowledged our SETTINGS.
        self._decoder.max_allowed_table_size = max(header_table_bytes, HEADER_TABLE_DEFAULT)

    def settings_acknowledged(self) -> None:
        self._heads.clear()  # the next block must say that the table shrinks
        self._decoder.max_allowed_table_size = self._table_bytes

    def limit_encoder(self, peer_table_bytes: int) -> None:
        """Follow the peer's table size, but never remember more than the default for it."""
        table_bytes = min(peer_table_bytes, HEADER_TABLE_DEFAULT)
        if table_bytes != self._encoder.header_table_size:  # hpack forgets a change set twice
            self._encoded.clear()
            self._encoder.header_table_size = table_bytes
            changes = self._encoder.table_size_changes
            if len(changes) > 2:  # RFC 7541 section 4.2: the smallest, then the last
                changes[:] = [min(changes), changes[-1]]

    # -- out -------------------------------------------------------------------------------------

    def encode_request(self, authority: str, fields: Fields, once: Fields) -> bytes:
        """`fields` are likely to come again. `once` are different in every request: they never
        enter the table, where they would only push the useful ones out."""
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
        known = self._encoded.get((status, fields))
        return known or self._encode(status, [(b":status", b"%d" % status)], fields)

    def _encode(self, what: str | int, pseudo: RawHeaders, fields: Fields) -> bytes:
        raw = pseudo + [(_raw(name), _raw(value)) for name, value in fields]
        # Huffman saves 30 bytes of a request and costs 35 microseconds of it, both sides together.
        block: bytes = self._encoder.encode(raw, huffman=False)
        if len(block) == len(raw) and _only_references(block):
            if len(self._encoded) >= REMEMBERED_MAX:
                self._encoded.clear()
            self._encoded[what, fields] = block
        else:
            self._encoded.clear()  # the table is another one now
        return block

    # -- in --------------------------------------------------------------------------------------

    def decode(self, block: bytes) -> Block:
        """A failure is the connection's end: both tables are out of step."""
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
    """A field that no table remembers, up to its value (RFC 7541 section 6.2.3)."""
    raw = _raw(name)
    if len(_literal_heads) >= REMEMBERED_MAX:
        _literal_heads.clear()
    head = _literal_heads[name] = b"\x10" + _length(raw) + raw
    return head


def _length(text: bytes) -> bytes:
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
    """The fields from `at` on, if all are literals with a name of their own that do not enter the
    table, none of it long or Huffman coded; None: that is for the library."""
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
    size = 0
    for name, value in raw:
        size += len(name) + len(value) + _FIELD_EXTRA_BYTES
    return size


def _raw(text: str) -> bytes:
    return text.encode("latin-1", "replace")
