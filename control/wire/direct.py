"""Lines of direct.sock: values to bytes and back, for both ends; decides nothing.

One JSON object a line. A known kind with a field that is missing or wrong is a WireError; unknown
kinds and fields are passed over, because a newer peer may say more. Flows stay unread in their line
(`FlowLine`): the ztunnel's supervisor only passes them on, and a broken one costs that flow, not
the connection. `control.wire.direct_flows` reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, assert_never

from control.kit.errors import WireError
from control.model.address import Address, Endpoint, format_address, parse_address

VERSION: Final = 1
# A flow takes some 300 bytes: 200 of them in a line, and an end that reads keeps one line at most.
LINE_BYTES_MAX: Final = 64 * 1024
# Shares of services, by (source, VIP, port), that one node learns: the size of the kernel's map.
SERVICES_MAX: Final = 4096
# Local endpoints of one share, as many as one entry of that map holds.
SLOTS_MAX: Final = 16
GENERATION_MAX: Final = (1 << 63) - 1
U64_MAX: Final = (1 << 64) - 1
U32_MAX: Final = (1 << 32) - 1
PORT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class ZtunnelHello:
    kind: ClassVar[str] = "hello"
    generation: int
    pid: int = 0  # for people; the agent goes by SO_PEERCRED
    version: int = VERSION
    tells_pods: bool = False  # it says `plaintext` of each pod once it knows the pod's workload


@dataclass(frozen=True, slots=True)
class AgentHello:
    kind: ClassVar[str] = "hello"
    lease_s: float
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Generation:
    """From the ztunnel: everything older is stale. From the agent: the kernel knows it."""

    kind: ClassVar[str] = "generation"
    generation: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Permission for connections from one pod to a port of another; pods are known by uid."""

    kind: ClassVar[str] = "verdict"
    generation: int
    source: str
    destination: str
    port: int


@dataclass(frozen=True, slots=True)
class ShareSlot:
    """One local endpoint of a service: its weight, its pod's uid, where it listens."""

    weight: int
    destination: str
    target: Endpoint


@dataclass(frozen=True, slots=True)
class ServiceShare:
    """Share of a service that is on this node. No slots: forget it.

    `total` is the sum of the weights of all endpoints, those on other nodes included.
    """

    kind: ClassVar[str] = "service"
    source: str
    vip: Address
    port: int
    total: int = 0
    slots: tuple[ShareSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class Plaintext:
    """`refused`: nobody without an identity is let into any port of this pod, except `but` these;
    or else those alone are refused."""

    kind: ClassVar[str] = "plaintext"
    pod: str
    refused: bool
    but: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cut:
    """End this flow now."""

    kind: ClassVar[str] = "cut"
    id: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Tell all open flows again."""

    kind: ClassVar[str] = "replay"


class FlowNews(StrEnum):
    OPENED = "opened"
    MOVED = "moved"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class FlowLine:
    """News of flows, each still as JSON gave it."""

    kind: FlowNews
    flows: list[Any]


@dataclass(frozen=True, slots=True)
class Unknown:
    kind: str


ZtunnelLine = ZtunnelHello | Generation | Verdict | ServiceShare | Plaintext | Cut | Replay
AgentLine = AgentHello | Generation | FlowLine


# Reading


def read_ztunnel_line(data: bytes) -> ZtunnelLine | Unknown:
    """Parse a line that a ztunnel wrote; WireError: it breaks the protocol."""
    record = _record(data)
    kind = _text(record, "kind")
    match kind:
        case "hello":
            version, generation = _number(record, "version"), _number(record, "generation")
            pid = _number(record, "pid") if "pid" in record else 0
            return ZtunnelHello(generation, pid, version, record.get("tells_pods") is True)
        case "generation":
            return Generation(_number(record, "generation"))
        case "verdict":
            generation = _number(record, "generation")
            ends = _text(record, "source"), _text(record, "destination")
            return Verdict(generation, *ends, _number(record, "port", 1, PORT_MAX))
        case "service":
            return _service(record)
        case "plaintext":
            return _plaintext(record)
        case "cut":
            return Cut(_number(record, "id", 0, U64_MAX))
        case "replay":
            return Replay()
        case _:
            return Unknown(kind)


def read_agent_line(data: bytes) -> AgentLine | Unknown:
    """Parse a line that an agent wrote; WireError: it breaks the protocol."""
    record = _record(data)
    kind = _text(record, "kind")
    match kind:
        case "hello":
            return AgentHello(_seconds(record, "lease_s"), _number(record, "version"))
        case "generation":
            return Generation(_number(record, "generation"))
        case FlowNews.OPENED | FlowNews.MOVED | FlowNews.CLOSED:
            flows = record.get("flows")
            if not isinstance(flows, list):
                raise WireError("flows: not a list")
            return FlowLine(FlowNews(kind), flows)
        case _:
            return Unknown(kind)


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise WireError("a line that is not JSON") from exc
    if not isinstance(record, dict):
        raise WireError("a line that is not an object")
    return record


def _service(record: dict[str, Any]) -> ServiceShare:
    raw = record.get("slots", [])
    if not isinstance(raw, list):
        raise WireError("slots: not a list")
    vip, port = _address(record, "vip"), _number(record, "port", 1, PORT_MAX)
    slots = tuple(_slot(each) for each in raw)
    total = _number(record, "total", 1, U32_MAX) if slots else 0
    if sum(each.weight for each in slots) > total:
        raise WireError("slots: more than the total")
    return ServiceShare(_text(record, "source"), vip, port, total, slots)


def _plaintext(record: dict[str, Any]) -> Plaintext:
    refused, raw = record.get("refused"), record.get("but", [])
    if not isinstance(refused, bool):
        raise WireError("refused: neither true nor false")
    if not isinstance(raw, list) or len(raw) > PORT_MAX:
        raise WireError("but: not a list of ports")
    ports = tuple(_number({"but": each}, "but", 1, PORT_MAX) for each in raw)
    return Plaintext(_text(record, "pod"), refused, ports)


def _slot(record: object) -> ShareSlot:
    if not isinstance(record, dict):
        raise WireError("slots: not an object")
    target = Endpoint(_address(record, "address"), _number(record, "port", 1, PORT_MAX))
    return ShareSlot(_number(record, "weight", 1, U32_MAX), _text(record, "destination"), target)


def _number(record: dict[str, Any], field: str, low: int = 0, high: int = GENERATION_MAX) -> int:
    value = record.get(field)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{field}: not a number from {low} to {high}")
    return value


def _seconds(record: dict[str, Any], field: str) -> float:
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError(f"{field}: not a number of seconds")
    if not 0 < value < U32_MAX:  # NaN is out of every range
        raise WireError(f"{field}: {value} seconds")
    return float(value)


def _text(record: dict[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value:
        raise WireError(f"{field}: not a text")
    return value


def _address(record: dict[str, Any], field: str) -> Address:
    text = _text(record, field)
    try:
        return parse_address(text)
    except ValueError as exc:
        raise WireError(f"{field}: not an address") from exc


# Writing


def encode(message: ZtunnelLine | AgentLine) -> bytes:
    """One JSON object without a newline, as it also goes between a supervisor and its workers."""
    return json_text({"kind": message.kind, **_fields(message)}).encode()


def encode_line(message: ZtunnelLine | AgentLine) -> bytes:
    """One line, newline included; WireError: it has more bytes than a line may have."""
    data = encode(message)
    if len(data) >= LINE_BYTES_MAX:
        raise WireError(f"a line of {len(data)} bytes")
    return data + b"\n"


# json.dumps makes an encoder each time, when it is asked for anything but the default.
json_text = json.JSONEncoder(separators=(",", ":")).encode


def _fields(message: ZtunnelLine | AgentLine) -> dict[str, Any]:
    """Fields after `kind`, in the order in which they go out."""
    match message:
        case ZtunnelHello(generation, pid, version, tells_pods):
            more = {"tells_pods": True} if tells_pods else {}
            return {"version": version, "pid": pid, "generation": generation, **more}
        case AgentHello(lease_s, version):
            return {"version": version, "lease_s": lease_s}
        case Generation(generation):
            return {"generation": generation}
        case Verdict(generation, source, destination, port):
            ends = {"source": source, "destination": destination}
            return {"generation": generation, **ends, "port": port}
        case ServiceShare():
            return _service_fields(message)
        case Plaintext(pod, refused, but):
            return {"pod": pod, "refused": refused, "but": list(but)}
        case Cut(number):
            return {"id": number}
        case Replay():
            return {}
        case FlowLine():
            return {"flows": message.flows}
        case _:
            assert_never(message)


def _service_fields(message: ServiceShare) -> dict[str, Any]:
    return {
        "source": message.source,
        "vip": format_address(message.vip),
        "port": message.port,
        "total": message.total,
        "slots": [
            {
                "weight": each.weight,
                "destination": each.destination,
                "address": format_address(each.target.address),
                "port": each.target.port,
            }
            for each in message.slots
        ],
    }
