"""The datapath's tables as the direct path uses them: other types, nothing else."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from functools import lru_cache

from agent.datapath.direct import DirectTables, ServiceSlot, parse_socket
from agent.datapath.direct import FlowEvent as KernelEvent
from agent.datapath.pods import IPAddress
from agent.direct.tables import FlowEvent, Slot
from bpf.layout import FlowKind
from control.model.address import Address, Endpoint, canonical

_RECORD = struct.Struct("=6Q16s16s16s4I6xBB")
_PORTS, _PORTS_AT = struct.Struct("!3H"), 112
# A connection has two records, and the pods of a node listen at few places.
ENDPOINTS_KEPT_MAX = 4096


class KernelTables:
    def __init__(self, tables: DirectTables) -> None:
        self._tables = tables
        self.state = tables.state
        self.set_state = tables.set_state
        self.put_verdict = tables.put_verdict
        self.drop_services = tables.drop_services
        self.flow_fd = tables.flow_fd
        self.lost_flows = tables.lost_flows
        self.socket_fd = tables.socket_fd

    def put_service(
        self, source: int, vip: Address, port: int, total: int, slots: Sequence[Slot]
    ) -> None:
        kernel_slots = [
            ServiceSlot(each.weight, each.destination, _ip(each.target.address), each.target.port)
            for each in slots
        ]
        self._tables.put_service(source, _ip(vip), port, total, kernel_slots)

    def drop_service(self, source: int, vip: Address, port: int) -> None:
        self._tables.drop_service(source, _ip(vip), port)

    def open_flow(self, cookie: int, data: bytes) -> FlowEvent | None:
        found = parse_socket(cookie, data)
        return None if found is None else _event(found)

    def read_flows(self, limit: int) -> list[FlowEvent]:
        return [parse_record(each) for each in self._tables.read_records(limit)]


def parse_record(data: bytes) -> FlowEvent:
    """`layout.FlowEvent` in one go: two for every direct connection of the node."""
    fields = _RECORD.unpack_from(data)
    number, _, _, age_ns, sent, received, client, target, original = fields[:9]
    source, destination, srtt_us, retransmits, kind, aborted = fields[9:]
    client_port, target_port, original_port = _PORTS.unpack_from(data, _PORTS_AT)
    error = "failed" if kind == FlowKind.FAILED else "aborted" if aborted else ""
    return FlowEvent(
        number,
        kind != FlowKind.OPENED,
        source,
        destination,
        _endpoint_of(client, client_port),
        _endpoint_of(target, target_port),
        _endpoint_of(original, original_port),
        age_ns / 1e9,
        sent,
        received,
        srtt_us,
        retransmits,
        error,
    )


@lru_cache(maxsize=ENDPOINTS_KEPT_MAX)
def _endpoint_of(address: bytes, port: int) -> Endpoint:
    return Endpoint(canonical(address), port)


def _ip(address: Address) -> IPAddress:
    return ipaddress.ip_address(bytes(address))


def _endpoint(pair: tuple[IPAddress, int]) -> Endpoint:
    return Endpoint(Address(pair[0].packed), pair[1])


def _event(event: KernelEvent) -> FlowEvent:
    return FlowEvent(
        id=event.id,
        is_closed=event.kind is not FlowKind.OPENED,
        source=event.source_id,
        destination=event.destination_id,
        client=_endpoint(event.client),
        target=_endpoint(event.target),
        original=_endpoint(event.original),
        age_s=event.age_ns / 1e9,
    )
