"""Flows in the lines of direct.sock: one connection that the kernel carries by itself.

The agent reports its opening, the bytes it has moved, and its end. Both ends handle one or two of
these for each direct connection of the node, so they are named tuples, which cost a third of a
frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from control.kit.errors import WireError
from control.model.address import Address, Endpoint, parse_endpoint
from control.wire.direct import (
    LINE_BYTES_MAX,
    PORT_MAX,
    U32_MAX,
    U64_MAX,
    FlowNews,
    json_text,
)

# Addresses of pods and services in use on one node, as text. Beyond this they are parsed again.
ENDPOINTS_KEPT_MAX: Final = 2048
_FRAME_BYTES: Final = 64  # `{"kind":"opened","flows":[]}` and the newline, with room


class OpenedFlow(NamedTuple):
    """A connection and its two pods, by uid. `original` is what the application dialled."""

    id: int
    source: str
    destination: str
    client: Endpoint
    target: Endpoint
    original: Endpoint
    age_s: float


class MovedFlow(NamedTuple):
    """Bytes of an open flow so far: client to server, server to client."""

    id: int
    sent: int
    received: int


class ClosedFlow(NamedTuple):
    flow: OpenedFlow
    sent: int
    received: int
    srtt_us: int
    retransmits: int
    error: str  # empty, `aborted`, or `failed`: never established


# Reading


def flow_id(flow: Any) -> int:
    """Number of a flow of any kind, all that is needed to pass it on; WireError: it has none."""
    try:
        number = flow["id"] if isinstance(flow, dict) else flow[0]
    except (LookupError, TypeError) as exc:
        raise WireError("a flow without a number") from exc
    if type(number) is not int or not 0 <= number <= U64_MAX:
        raise WireError("a flow without a number")
    return number


def read_moved(flow: Any) -> MovedFlow:
    """Parse an entry of `moved`; WireError: it is none."""
    if not isinstance(flow, list) or len(flow) < 3:
        raise WireError("not three numbers")
    number, sent, received = flow[:3]
    _check_numbers(number, sent, received)
    return MovedFlow(number, sent, received)


def read_opened(flow: Any) -> OpenedFlow:
    """Parse an entry of `opened`; WireError: it is none."""
    # Anything may stand in a field. What it cannot do fails here, and costs the good ones nothing.
    try:
        number, source, destination = flow["id"], flow["source"], flow["destination"]
        client, target, original = flow["client"], flow["target"], flow["original"]
        age_s = flow["age_s"]
        ends = _client(client), _endpoint(target), _endpoint(original)
        in_range = -U32_MAX < age_s < U32_MAX  # NaN is not
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise WireError(f"not a flow: {exc!r}") from exc
    _check_numbers(number)
    if type(source) is not str or type(destination) is not str or not source or not destination:
        raise WireError("a flow without its pods")
    if not in_range or type(age_s) is bool:
        raise WireError("age_s: not a number of seconds")
    # From two readings of a clock, so it may be slightly below zero.
    return OpenedFlow(number, source, destination, *ends, age_s if age_s > 0 else 0.0)


def read_closed(flow: Any) -> ClosedFlow:
    """Parse an entry of `closed`; WireError: it is none."""
    opened = read_opened(flow)
    try:
        sent, received = flow["sent"], flow["received"]
        srtt_us, retransmits, error = flow["srtt_us"], flow["retransmits"], flow["error"]
    except KeyError as exc:
        raise WireError(f"a closed flow without {exc}") from exc
    _check_numbers(sent, received, srtt_us, retransmits)
    if type(error) is not str:
        raise WireError("error: not a text")
    return ClosedFlow(opened, sent, received, srtt_us, retransmits, error)


def _check_numbers(*values: object) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value <= U64_MAX:
            raise WireError("a number that is none, or out of range")


# Pods and services of this node: the same few again and again. Only clients' ports differ.
_endpoint = lru_cache(maxsize=ENDPOINTS_KEPT_MAX)(parse_endpoint)


@lru_cache(maxsize=ENDPOINTS_KEPT_MAX)
def _host(text: str) -> Address:
    return parse_endpoint(f"{text}:1").address


def _client(text: str) -> Endpoint:
    host, _, port_text = text.rpartition(":")
    port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
    if not 0 < port <= PORT_MAX:
        raise ValueError(f"not a port in {text!r}")
    return Endpoint(_host(host), port)


# Writing. By templates: two for each connection, and a dictionary would cost a third more.

_OPENED: Final = (
    '"id":%d,"source":%s,"destination":%s,"client":"%s","target":"%s","original":"%s","age_s":%s'
)
_CLOSED: Final = ',"sent":%d,"received":%d,"srtt_us":%d,"retransmits":%d,"error":%s'


def opened_lines(flows: Iterable[OpenedFlow]) -> Iterator[bytes]:
    return _lines(FlowNews.OPENED, (f"{{{_opened(flow)}}}" for flow in flows))


def moved_lines(flows: Iterable[MovedFlow]) -> Iterator[bytes]:
    return _lines(FlowNews.MOVED, map(_moved, flows))


def closed_lines(flows: Iterable[ClosedFlow]) -> Iterator[bytes]:
    return _lines(FlowNews.CLOSED, map(_closed, flows))


def _moved(flow: MovedFlow) -> str:
    return f"[{flow.id},{flow.sent},{flow.received}]"


def _opened(flow: OpenedFlow) -> str:
    number, source, destination, client, target, original, age_s = flow
    ends = client, target, original
    return _OPENED % (number, json_text(source), json_text(destination), *ends, round(age_s, 3))


def _closed(closed: ClosedFlow) -> str:
    flow, *figures, error = closed
    return f"{{{_opened(flow)}{_CLOSED % (*figures, json_text(error))}}}"


def _lines(kind: FlowNews, flows: Iterable[str]) -> Iterator[bytes]:
    """As few lines as hold them all; none is longer than a line may be."""
    parts: list[str] = []
    size = _FRAME_BYTES
    for text in flows:
        if parts and size + len(text) + 1 > LINE_BYTES_MAX:
            yield _line(kind, parts)
            parts, size = [], _FRAME_BYTES
        parts.append(text)
        size += len(text) + 1
    if parts:
        yield _line(kind, parts)


def _line(kind: FlowNews, flows: list[str]) -> bytes:
    return f'{{"kind":"{kind}","flows":[{",".join(flows)}]}}\n'.encode()
