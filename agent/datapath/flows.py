"""Reports on direct connections as the kernel's programs write them: bytes to values. Pure."""

import socket
import struct
from functools import lru_cache
from typing import NamedTuple

from bpf import layout
from bpf.layout import FlowKind
from control.model.address import Endpoint, canonical

_RECORD = struct.Struct("=6Q16s16s16s4I6xBB")  # layout.FlowEvent; its three ports are read below
_PORTS, _PORTS_AT = struct.Struct("!3H"), 112
# A connection has two reports, and the pods of a node listen at few places.
_ENDPOINTS_KEPT_MAX = 4096


class FlowReport(NamedTuple):
    """A direct connection was opened, or is over."""

    id: int  # the client's socket cookie: unique until the next boot
    is_closed: bool
    source: int  # workload ids
    destination: int
    client: Endpoint
    target: Endpoint
    original: Endpoint  # dialled by the application: the target or a service
    age_s: float = 0.0
    sent: int = 0  # bytes from the client, acknowledged
    received: int = 0
    srtt_us: int = 0
    retransmits: int = 0
    error: str = ""  # failed: never established; aborted: not ended by both sides


def parse_record(data: bytes) -> FlowReport:
    """One record of the ring. Unpacked in one go: each direct connection brings two of them."""
    fields = _RECORD.unpack_from(data)
    number, _, _, age_ns, sent, received, client, target, original = fields[:9]
    source, destination, srtt_us, retransmits, kind, aborted = fields[9:]
    client_port, target_port, original_port = _PORTS.unpack_from(data, _PORTS_AT)
    error = "failed" if kind == FlowKind.FAILED else "aborted" if aborted else ""
    return FlowReport(
        number,
        kind != FlowKind.OPENED,
        source,
        destination,
        _endpoint(client, client_port),
        _endpoint(target, target_port),
        _endpoint(original, original_port),
        age_ns / 1e9,
        sent,
        received,
        srtt_us,
        retransmits,
        error,
    )


def parse_socket(cookie: int, data: bytes, now_ns: int) -> FlowReport | None:
    """The open connection behind a socket, from the socket's own storage.

    None when it is not established, or not direct. `now_ns`: the programs' clock.
    """
    if len(data) != layout.MAPS["direct_socket"].value_bytes:
        return None
    raw = layout.DirectSocket.from_buffer_copy(data)
    if not raw.established:
        return None
    return FlowReport(
        id=cookie,
        is_closed=False,
        source=raw.source,
        destination=raw.destination,
        client=_endpoint(bytes(raw.client), socket.ntohs(raw.client_port)),
        target=_endpoint(bytes(raw.target), socket.ntohs(raw.target_port)),
        original=_endpoint(bytes(raw.original), socket.ntohs(raw.original_port)),
        age_s=(now_ns - raw.opened_ns) / 1e9,
    )


@lru_cache(maxsize=_ENDPOINTS_KEPT_MAX)
def _endpoint(address: bytes, port: int) -> Endpoint:
    return Endpoint(canonical(address), port)
