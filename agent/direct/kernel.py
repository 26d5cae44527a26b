"""The datapath's tables as the direct path uses them: other types, nothing else."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from agent.datapath.direct import DirectTables, ServiceSlot
from agent.datapath.direct import FlowEvent as KernelEvent
from agent.datapath.pods import IPAddress
from agent.direct.tables import FlowEvent, Slot
from bpf.layout import FlowKind
from control.model.address import Address, Endpoint

_ERRORS = {FlowKind.FAILED: "failed"}


class KernelTables:
    def __init__(self, tables: DirectTables) -> None:
        self._tables = tables
        self.state = tables.state
        self.set_state = tables.set_state
        self.put_verdict = tables.put_verdict
        self.drop_services = tables.drop_services
        self.flow_fd = tables.flow_fd

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

    def read_flows(self, limit: int) -> list[FlowEvent]:
        return [_event(each) for each in self._tables.read_flows(limit)]


def _ip(address: Address) -> IPAddress:
    return ipaddress.ip_address(bytes(address))


def _endpoint(pair: tuple[IPAddress, int]) -> Endpoint:
    return Endpoint(Address(pair[0].packed), pair[1])


def _event(event: KernelEvent) -> FlowEvent:
    aborted = "aborted" if event.aborted else ""
    return FlowEvent(
        id=event.id,
        is_closed=event.kind is not FlowKind.OPENED,
        source=event.source_id,
        destination=event.destination_id,
        client=_endpoint(event.client),
        target=_endpoint(event.target),
        original=_endpoint(event.original),
        age_s=event.age_ns / 1e9,
        sent=event.sent_bytes,
        received=event.received_bytes,
        srtt_us=event.srtt_us,
        retransmits=event.retransmits,
        error=_ERRORS.get(event.kind, aborted),
    )
