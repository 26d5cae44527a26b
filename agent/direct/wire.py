"""The lines of direct.sock (C9, control/wire/CONTRACT.md): bytes to values and back, pure.

Strict in what is sent and in what is understood: a known kind with a field that is missing or
wrong is an error. Unknown kinds and fields are nothing: a newer ztunnel may say more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.datapath.flows import FlowReport
from control.kit.errors import WireError
from control.model.address import Address, Endpoint, parse_address

VERSION = 1
LINE_BYTES_MAX = 64 * 1024  # C9
GENERATION_MAX = (1 << 63) - 1
ID_MAX = (1 << 64) - 1  # a socket's cookie
TOTAL_MAX = (1 << 32) - 1  # a u32 in the kernel's record
_FRAME_BYTES = 64  # `{"kind":"opened","flows":[]}` and the newline, with room


@dataclass(frozen=True, slots=True)
class Hello:
    version: int
    generation: int


@dataclass(frozen=True, slots=True)
class Generation:
    generation: int


@dataclass(frozen=True, slots=True)
class Verdict:
    generation: int
    source: str
    destination: str
    port: int


@dataclass(frozen=True, slots=True)
class ServiceSlot:
    weight: int
    destination: str
    target: Endpoint


@dataclass(frozen=True, slots=True)
class Service:
    source: str
    vip: Address
    port: int
    total: int
    slots: tuple[ServiceSlot, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    id: int


@dataclass(frozen=True, slots=True)
class Replay:
    pass


@dataclass(frozen=True, slots=True)
class Unknown:
    kind: str


Message = Hello | Generation | Verdict | Service | Cut | Replay | Unknown


def parse(line: bytes) -> Message:
    """WireError: not a line of this protocol."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise WireError("a line that is not JSON") from exc
    if not isinstance(record, dict):
        raise WireError("a line that is not an object")
    kind = _text(record, "kind")
    match kind:
        case "hello":
            version = _number(record, "version", 0, GENERATION_MAX)
            return Hello(version, _number(record, "generation", 0, GENERATION_MAX))
        case "generation":
            return Generation(_number(record, "generation", 0, GENERATION_MAX))
        case "verdict":
            generation = _number(record, "generation", 0, GENERATION_MAX)
            ends = _text(record, "source"), _text(record, "destination")
            return Verdict(generation, *ends, _number(record, "port", 1, 65535))
        case "service":
            return _service(record)
        case "cut":
            return Cut(_number(record, "id", 0, ID_MAX))
        case "replay":
            return Replay()
        case _:
            return Unknown(kind)


def _service(record: dict[str, Any]) -> Service:
    raw = record.get("slots", [])
    if not isinstance(raw, list):
        raise WireError("slots: not a list")
    vip, port = _address(record, "vip"), _number(record, "port", 1, 65535)
    slots = tuple(_slot(each) for each in raw)
    total = _number(record, "total", 1, TOTAL_MAX) if slots else 0
    if sum(each.weight for each in slots) > total:
        raise WireError("slots: more than the total")
    return Service(_text(record, "source"), vip, port, total, slots)


def _slot(record: object) -> ServiceSlot:
    if not isinstance(record, dict):
        raise WireError("slots: not an object")
    target = Endpoint(_address(record, "address"), _number(record, "port", 1, 65535))
    weight = _number(record, "weight", 1, TOTAL_MAX)
    return ServiceSlot(weight, _text(record, "destination"), target)


def _number(record: dict[str, Any], field: str, low: int, high: int) -> int:
    value = record.get(field)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{field}: not a number from {low} to {high}")
    return value


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


# What we say


def hello(lease_s: float) -> bytes:
    return _line({"kind": "hello", "version": VERSION, "lease_s": lease_s})


def generation(number: int) -> bytes:
    return _line({"kind": "generation", "generation": number})


def flow_record(flow: FlowReport, source: str, destination: str, age_s: float) -> dict[str, Any]:
    """The fields of `opened`."""
    return {
        "id": flow.id,
        "source": source,
        "destination": destination,
        "client": str(flow.client),
        "target": str(flow.target),
        "original": str(flow.original),
        "age_s": round(age_s, 3),
    }


def closed_record(flow: FlowReport, source: str, destination: str, age_s: float) -> dict[str, Any]:
    return {
        **flow_record(flow, source, destination, age_s),
        "sent": flow.sent,
        "received": flow.received,
        "srtt_us": flow.srtt_us,
        "retransmits": flow.retransmits,
        "error": flow.error,
    }


def flow_lines(kind: str, records: Iterable[object]) -> Iterator[bytes]:
    """As few lines as hold them all."""
    parts: list[bytes] = []
    size = _FRAME_BYTES
    for record in records:
        text = _json(record)
        if parts and size + len(text) + 1 > LINE_BYTES_MAX:
            yield _flow_line(kind, parts)
            parts, size = [], _FRAME_BYTES
        parts.append(text)
        size += len(text) + 1
    if parts:
        yield _flow_line(kind, parts)


def _flow_line(kind: str, parts: list[bytes]) -> bytes:
    return b'{"kind":"%s","flows":[%s]}\n' % (kind.encode(), b",".join(parts))


# json.dumps makes an encoder each time, when it is asked for anything but the default.
_text_of = json.JSONEncoder(separators=(",", ":")).encode


def _json(value: object) -> bytes:
    return _text_of(value).encode()


def _line(value: object) -> bytes:
    return _json(value) + b"\n"
