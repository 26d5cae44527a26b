"""The kernel's tables of the direct path: writes what it is told, reads flows; decides nothing.

Each table's zero and each missing entry means "not direct". `locals` belongs to capture and release
(node.py), the rest to whoever speaks with the ztunnel. Times are CLOCK_MONOTONIC in nanoseconds,
the clock of the programs (`now_ns`).
"""

import ipaddress
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.datapath import bpfsys
from agent.datapath.bpfsys import Map
from agent.datapath.pods import IPAddress, mapped
from agent.datapath.ring import Ring
from bpf import layout
from bpf.layout import FlowKind

WORKLOAD_ID_MAX: Final = 2**32 - 1
_GENERATION_MAX: Final = 2**64 - 1
_ONLY = struct.pack("=I", 0)  # the key of a map with one entry

Endpoint = tuple[IPAddress, int]


@dataclass(frozen=True, slots=True)
class ServiceSlot:
    """A local endpoint of a service. `weight` is its own chance out of the service's `total`."""

    weight: int
    workload_id: int
    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """A direct connection opened, closed, or failed before it was established."""

    kind: FlowKind
    id: int  # the client's socket cookie: unique until the next boot
    generation: int  # in which it was allowed
    source_id: int
    destination_id: int
    client: Endpoint
    target: Endpoint
    original: Endpoint  # what the app dialled: the target or a service
    opened_ns: int
    age_ns: int
    sent_bytes: int  # by the client, and acknowledged
    received_bytes: int
    srtt_us: int
    retransmits: int
    aborted: bool  # an end without both sides' FIN


def now_ns() -> int:
    """The programs' clock."""
    return time.monotonic_ns()


def _endpoint(address: layout.Address, port: int) -> Endpoint:
    ip = ipaddress.IPv6Address(bytes(address))
    return ip.ipv4_mapped or ip, socket.ntohs(port)


def parse_flow(data: bytes) -> FlowEvent:
    raw = layout.FlowEvent.from_buffer_copy(data)
    return FlowEvent(
        kind=FlowKind(raw.kind),
        id=raw.id,
        generation=raw.generation,
        source_id=raw.source,
        destination_id=raw.destination,
        client=_endpoint(raw.client, raw.client_port),
        target=_endpoint(raw.target, raw.target_port),
        original=_endpoint(raw.original, raw.original_port),
        opened_ns=raw.opened_ns,
        age_ns=raw.age_ns,
        sent_bytes=raw.sent,
        received_bytes=raw.received,
        srtt_us=raw.srtt_us,
        retransmits=raw.retransmits,
        aborted=bool(raw.aborted),
    )


def parse_socket(cookie: int, data: bytes) -> FlowEvent | None:
    """The open connection that a socket is; None: it is not established, or not direct."""
    if len(data) != layout.MAPS["direct_socket"].value_bytes:
        return None
    raw = layout.DirectSocket.from_buffer_copy(data)
    if not raw.established:
        return None
    return FlowEvent(
        kind=FlowKind.OPENED,
        id=cookie,
        generation=raw.generation,
        source_id=raw.source,
        destination_id=raw.destination,
        client=_endpoint(raw.client, raw.client_port),
        target=_endpoint(raw.target, raw.target_port),
        original=_endpoint(raw.original, raw.original_port),
        opened_ns=raw.opened_ns,
        age_ns=now_ns() - raw.opened_ns,
        sent_bytes=0,
        received_bytes=0,
        srtt_us=0,
        retransmits=0,
        aborted=False,
    )


def address_value(address: IPAddress) -> layout.Address:
    return layout.Address.from_buffer_copy(mapped(address))


def verdict_key(source_id: int, destination_id: int, port: int) -> layout.VerdictKey:
    return layout.VerdictKey(source=source_id, destination=destination_id, port=socket.htons(port))


def service_key(source_id: int, vip: IPAddress, port: int) -> layout.ServiceKey:
    return layout.ServiceKey(source=source_id, port=socket.htons(port), vip=address_value(vip))


def service_value(total: int, slots: Sequence[ServiceSlot]) -> layout.ServiceValue:
    """Slots beyond the table's room count as elsewhere, where the tunnel finds them as well."""
    value = layout.ServiceValue(total=total)
    cumulative = 0
    for slot in slots[: layout.SLOTS_MAX]:
        cumulative += slot.weight
        value.slots[value.count] = layout.ServiceSlot(
            cumulative=cumulative,
            workload=slot.workload_id,
            ip=address_value(slot.address),
            port=socket.htons(slot.port),
        )
        value.count += 1
    if cumulative > total or not 0 < total <= WORKLOAD_ID_MAX:
        raise ValueError(f"slots of {cumulative} chances out of {total}")
    return value


class DirectTables:
    """Opened with the datapath and closed with it."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._ring = Ring(maps["flows"])

    def close(self) -> None:
        self._ring.close()

    # Whether anything may go direct at all

    def set_state(self, generation: int, lease_until_ns: int) -> None:
        """Verdicts of other generations are stale from here on. 0, 0: nothing goes direct."""
        if not 0 <= generation <= _GENERATION_MAX:
            raise ValueError(f"generation {generation}")
        value = layout.DirectState(generation=generation, lease_until_ns=lease_until_ns)
        self._maps["direct_state"].update(_ONLY, bytes(value))

    def state(self) -> tuple[int, int]:
        """(generation, end of the lease) as the kernel has them."""
        raw = self._maps["direct_state"].lookup(_ONLY)
        if raw is None:
            return 0, 0
        value = layout.DirectState.from_buffer_copy(raw)
        return value.generation, value.lease_until_ns

    # Who may talk to whom

    def put_verdict(self, source_id: int, destination_id: int, port: int, generation: int) -> None:
        """That source may talk to that port of that destination, in that generation."""
        if not (source_id and destination_id and generation):
            raise ValueError("a verdict for nobody, or of no generation")
        key = verdict_key(source_id, destination_id, port)
        self._maps["verdicts"].update(bytes(key), struct.pack("=Q", generation))

    def drop_verdict(self, source_id: int, destination_id: int, port: int) -> bool:
        return self._maps["verdicts"].delete(bytes(verdict_key(source_id, destination_id, port)))

    def put_service(
        self, source_id: int, vip: IPAddress, port: int, total: int, slots: Sequence[ServiceSlot]
    ) -> None:
        """What of that service is here, as that source may choose it."""
        key, value = service_key(source_id, vip, port), service_value(total, slots)
        self._maps["services"].update(bytes(key), bytes(value))

    def drop_service(self, source_id: int, vip: IPAddress, port: int) -> bool:
        return self._maps["services"].delete(bytes(service_key(source_id, vip, port)))

    def drop_services(self) -> None:
        """All of them, of whomever."""
        for key in list(self._maps["services"]):
            self._maps["services"].delete(key)

    # Who is at an address: capture and release keep this

    def add_local(self, address: IPAddress, workload_id: int, device: int = 0) -> None:
        if not 0 < workload_id <= WORKLOAD_ID_MAX:
            raise ValueError(f"workload id {workload_id}")
        value = layout.Local(workload=workload_id, device=device)
        self._maps["locals"].update(mapped(address), bytes(value))

    def remove_local(self, address: IPAddress, workload_id: int) -> bool:
        """Only that workload's: an address may be somebody else's by now."""
        found = self._maps["locals"].lookup(mapped(address))
        if found is None or layout.Local.from_buffer_copy(found).workload != workload_id:
            return False
        return self._maps["locals"].delete(mapped(address))

    # What became of connections

    def flow_fd(self) -> int:
        """For epoll; readable when there are events. The datapath's to close."""
        return self._ring.fileno()

    def read_flows(self, events_max: int) -> list[FlowEvent]:
        return [parse_flow(record) for record in self._ring.read(events_max)]

    def read_records(self, events_max: int) -> list[bytes]:
        """The same for who parses them otherwise."""
        return self._ring.read(events_max)

    def socket_fd(self) -> int:
        """Of the map with what connect() left on each direct socket (`DirectSocket`)."""
        return self._maps["direct_socket"].fd

    def lost_flows(self) -> int:
        """Records that found the ring full."""
        cpus = bpfsys.cpu_count_possible()
        key = struct.pack("=I", layout.Counter.FLOW_LOST)
        raw = self._maps["counters"].lookup(key, 8 * cpus) or b""
        return sum(struct.unpack(f"={len(raw) // 8}Q", raw))

    def unread_bytes(self) -> int:
        return self._ring.unread_bytes()
