"""The headers beside `:authority`: forwarded, baggage, traceparent; written exactly, read mildly.

They are hints for logs and metrics. Identity never comes from here, so a bad one is only absent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from ztunnel.hbone.authority import Authority, format_authority, parse_authority

FORWARDED: Final = "forwarded"
BAGGAGE: Final = "baggage"
TRACEPARENT: Final = "traceparent"
FORWARDED_NETWORK: Final = "x-forwarded-network"

# W3C baggage asks for 8,192 bytes and 64 members at least; nobody needs more for a workload's name.
BAGGAGE_CHARS_MAX: Final = 8_192
BAGGAGE_MEMBERS_MAX: Final = 64
FORWARDED_CHARS_MAX: Final = 1_024
TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8

_PARAMETER: Final = re.compile(r"""\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s";,]*))\s*""")
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.{0,256})?"
)
_BAGGAGE_SAFE: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Who opened the connection, and through which service name; either may be unknown."""

    source: Authority | None
    host: str | None


@dataclass(frozen=True, slots=True)
class TraceParent:
    trace_id: str
    span_id: str
    flags: int


def format_forwarded(
    address: IPv4Address | IPv6Address, port: int, service_host: str | None = None
) -> str:
    text = f'for="{format_authority(address, port)}"'
    return text if service_host is None else f"{text};host={service_host}"


def parse_forwarded(text: str) -> Forwarded:
    """The first hop's `for` and `host`; later hops are what somebody added on the way."""
    source: Authority | None = None
    host: str | None = None
    position = 0
    text = text[:FORWARDED_CHARS_MAX]
    while (match := _PARAMETER.match(text, position)) is not None:
        name, quoted, token = match.groups()
        value = token if quoted is None else quoted
        if name.lower() == "for" and source is None:
            source = parse_authority(value)
        elif name.lower() == "host" and host is None:
            host = value or None
        position = match.end()
        if text[position : position + 1] != ";":
            break
        position += 1
    return Forwarded(source, host)


def format_baggage(members: Mapping[str, str]) -> str:
    """Empty values are left out; values are escaped where the standard asks for it."""
    return ",".join(
        f"{key}={quote(value, safe=_BAGGAGE_SAFE)}" for key, value in members.items() if value
    )


def parse_baggage(text: str) -> dict[str, str]:
    """Key to value; properties behind a semicolon, broken and surplus members are dropped."""
    members: dict[str, str] = {}
    for member in text[:BAGGAGE_CHARS_MAX].split(",", BAGGAGE_MEMBERS_MAX)[:BAGGAGE_MEMBERS_MAX]:
        key, equals, value = member.partition(";")[0].partition("=")
        key = key.strip()
        if equals and key and key not in members:
            members[key] = unquote(value.strip(), errors="replace")
    return members


def format_traceparent(trace_id: bytes, span_id: bytes) -> str:
    """W3C version 00, not sampled: an id to correlate logs with, no span is ever sent."""
    if len(trace_id) != TRACE_ID_BYTES or len(span_id) != SPAN_ID_BYTES:
        raise ValueError("a trace id has 16 bytes, a span id 8")
    return f"00-{trace_id.hex()}-{span_id.hex()}-00"


def parse_traceparent(text: str) -> TraceParent | None:
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    if version == "00" and len(text) != 55:
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))
