"""Header lists: HPACK through the hpack library, and which lists are a request or a response."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.frames import HEADER_TABLE_DEFAULT

RawHeaders = list[tuple[bytes, bytes]]
Headers = list[tuple[str, str]]

# What `RequestReceived.method` says for RFC 8441's CONNECT with :protocol, which is no tunnel.
EXTENDED_CONNECT: Final = "CONNECT with :protocol"

# Different in every request: indexing them would only push the useful entries out of the table.
_NEVER_INDEXED: Final = frozenset({"forwarded", "traceparent"})
# Static table entry 8 is `:status 200`, with no state in it; it is nearly every answer.
_STATUS_200: Final = b"\x88"

# Two announce any change (RFC 7541 section 4.2); 64 KiB of them would take 130 ms.
_SIZE_UPDATES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# The names in nearly every request: looked up instead of matched and decoded.
_KNOWN_NAMES: Final = {
    name.encode(): name for name in ("baggage", "forwarded", "traceparent", "x-forwarded-network")
}
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS: Final = re.compile(rb"[1-5][0-9][0-9]")
_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_RESPONSE_PSEUDO: Final = frozenset({b":status"})
_NO_PSEUDO: Final[frozenset[bytes]] = frozenset()


class MalformedError(Exception):
    """The header list breaks RFC 9113 section 8; the stream is reset, the connection lives."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    authority: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Headers


class HeaderCodec:
    """The two compression states of one connection."""

    __slots__ = ("_decoder", "_encoder", "_table_bytes")

    def __init__(self, header_list_bytes: int, header_table_bytes: int) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder(max_header_list_size=header_list_bytes)
        self._table_bytes = header_table_bytes
        # A smaller table binds the peer only once it has acknowledged our SETTINGS.
        self._decoder.max_allowed_table_size = max(header_table_bytes, HEADER_TABLE_DEFAULT)

    def settings_acknowledged(self) -> None:
        self._decoder.max_allowed_table_size = self._table_bytes

    def limit_encoder(self, peer_table_bytes: int) -> None:
        """Follow the peer's table size, but never remember more than the default for it."""
        table_bytes = min(peer_table_bytes, HEADER_TABLE_DEFAULT)
        if table_bytes != self._encoder.header_table_size:  # hpack forgets a change set twice
            self._encoder.header_table_size = table_bytes
            changes = self._encoder.table_size_changes
            if len(changes) > 2:  # RFC 7541 section 4.2: the smallest, then the last
                changes[:] = [min(changes), changes[-1]]

    def encode_request(self, authority: str, headers: Sequence[tuple[str, str]]) -> bytes:
        return self._encode([(b":method", b"CONNECT"), (b":authority", _raw(authority))], headers)

    def encode_response(self, status: int, headers: Sequence[tuple[str, str]]) -> bytes:
        if status == 200 and not headers and not self._encoder.header_table.resized:
            return _STATUS_200
        return self._encode([(b":status", b"%d" % status)], headers)

    def _encode(self, pseudo: RawHeaders, headers: Sequence[tuple[str, str]]) -> bytes:
        fields: list[tuple[bytes, bytes, bool]] = [(*field, False) for field in pseudo]
        fields += [(_raw(name), _raw(value), name in _NEVER_INDEXED) for name, value in headers]
        # Huffman saves 30 bytes of a request and costs 35 microseconds of it, both sides together.
        return self._encoder.encode(fields, huffman=False)

    def decode(self, block: bytes) -> RawHeaders:
        """A failure is the connection's end: both tables are out of step."""
        if _SIZE_UPDATES.match(block):
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, "too many table size updates")
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "header list too large") from None
        except HPACKError as exc:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, str(exc)[:80]) from None


def parse_request(raw: RawHeaders) -> Request:
    pseudo, headers = _split(raw, _REQUEST_PSEUDO)
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise MalformedError("no or bad :method")
    authority = _text(pseudo.get(b":authority", b""))
    tunnel = method == b"CONNECT" and b":protocol" not in pseudo
    if tunnel and (b":scheme" in pseudo or b":path" in pseudo):
        raise MalformedError("CONNECT with :scheme or :path")
    if tunnel and not authority:
        raise MalformedError("CONNECT without :authority")
    if tunnel:
        return Request("CONNECT", authority, headers)
    if not pseudo.get(b":scheme") or not pseudo.get(b":path"):
        raise MalformedError("request without :scheme or :path")
    if b":protocol" not in pseudo:
        return Request(_text(method), authority, headers)
    if method != b"CONNECT":
        raise MalformedError(":protocol without CONNECT")
    return Request(EXTENDED_CONNECT, authority, headers)


def parse_response(raw: RawHeaders) -> Response:
    pseudo, headers = _split(raw, _RESPONSE_PSEUDO)
    status = pseudo.get(b":status", b"")
    if not _STATUS.fullmatch(status) or status == b"101":
        raise MalformedError("no or bad :status")
    return Response(int(status), headers)


def check_trailers(raw: RawHeaders) -> None:
    _split(raw, _NO_PSEUDO)


def _split(raw: RawHeaders, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], Headers]:
    """Pseudo headers apart from the others, each field checked (RFC 9113 section 8.2 and 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    for name, value in raw:
        # In a row of substring searches, because a pattern takes ten times as long.
        if b"\n" in value or b"\r" in value or b"\0" in value or value.strip(b" \t") != value:
            raise MalformedError("bad header value")
        if name[:1] == b":":
            if headers or name in pseudo or name not in allowed:
                raise MalformedError("unexpected pseudo header")
            pseudo[name] = value
            continue
        known = _KNOWN_NAMES.get(name)
        if known is not None:
            headers.append((known, _text(value)))
            continue
        if not _NAME.fullmatch(name):
            raise MalformedError("bad header name")
        if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
            raise MalformedError("connection-specific header")
        headers.append((_text(name), _text(value)))
    return pseudo, headers


def _text(raw: bytes) -> str:
    # Latin-1 gives every byte a character, so a strange value is a strange string, never an error.
    return raw.decode("latin-1")


def _raw(text: str) -> bytes:
    return text.encode("latin-1", "replace")
