"""Header lists: checked, and read as requests or responses. Knows nothing of compression."""

import re
from dataclasses import dataclass
from typing import Final

RawHeaders = list[tuple[bytes, bytes]]
Headers = list[tuple[str, str]]

# The method in `RequestReceived` for RFC 8441's CONNECT with :protocol, which is no tunnel.
EXTENDED_CONNECT: Final = "CONNECT with :protocol"

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


@dataclass(slots=True)
class Request:
    """A checked request. Several streams may share one and its list of headers: never change it.

    It is not frozen because a frozen one takes three times as long to make.
    """

    method: str
    authority: str
    headers: Headers

    def with_fields(self, raw: RawHeaders) -> "Request":
        """The request with more fields, none of them a pseudo header. Raises MalformedError."""
        headers = self.headers.copy()
        for name, value in raw:
            known = _KNOWN_NAMES.get(name)
            text = value.decode("latin-1")
            # A printable text has none of the characters that a value must not have. Tabs and
            # spaces at its ends need the whole check.
            if known is None or not text.isprintable() or text[:1] == " " or text[-1:] == " ":
                headers.append(_field(name, value))
            else:
                headers.append((known, text))
        return Request(self.method, self.authority, headers)


@dataclass(frozen=True, slots=True)
class Response:
    """A checked response, interim ones (1xx) included."""

    status: int
    headers: Headers


def parse_request(raw: RawHeaders) -> Request:
    """A request by RFC 9113 section 8.3.1 and 8.5. Raises MalformedError."""
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
    """A response by RFC 9113 section 8.3.2. Raises MalformedError."""
    pseudo, headers = _split(raw, _RESPONSE_PSEUDO)
    status = pseudo.get(b":status", b"")
    if not _STATUS.fullmatch(status) or status == b"101":
        raise MalformedError("no or bad :status")
    return Response(int(status), headers)


def check_trailers(raw: RawHeaders) -> None:
    """Raise MalformedError for trailers with pseudo headers or bad fields."""
    _split(raw, _NO_PSEUDO)


def _split(raw: RawHeaders, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], Headers]:
    """Pseudo headers and the other fields, each checked (RFC 9113 section 8.2 and 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    for name, value in raw:
        if name[:1] != b":":
            headers.append(_field(name, value))
            continue
        if headers or name in pseudo or name not in allowed:
            raise MalformedError("unexpected pseudo header")
        _check_value(value)
        pseudo[name] = value
    return pseudo, headers


def _field(name: bytes, value: bytes) -> tuple[str, str]:
    _check_value(value)
    known = _KNOWN_NAMES.get(name)
    if known is not None:
        return known, value.decode("latin-1")
    if not _NAME.fullmatch(name):
        raise MalformedError("bad header name")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedError("connection-specific header")
    return _text(name), _text(value)


def _check_value(value: bytes) -> None:
    # Four searches, because a pattern takes ten times as long.
    if b"\n" in value or b"\r" in value or b"\0" in value or value.strip(b" \t") != value:
        raise MalformedError("bad header value")


def _text(raw: bytes) -> str:
    # Latin-1 gives every byte a character, so a strange value is a strange string, never an error.
    return raw.decode("latin-1")
