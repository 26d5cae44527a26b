"""The kernel's tables of the direct path: writes entries, reads reports; decides nothing.

Zero, and a missing entry, mean "not direct" in each of them. Times are nanoseconds of
CLOCK_MONOTONIC, the programs' clock.
"""

import struct
import time
from collections.abc import Mapping, Sequence
from typing import Final

from agent.datapath.entries import LocalEndpoint, service_key, service_value, verdict_key
from agent.datapath.flows import FlowReport, parse_record, parse_socket
from agent.datapath.maps import Map, cpu_count_possible
from agent.datapath.ring import Ring
from bpf import layout
from control.model.address import Address

_GENERATION_MAX: Final = 2**64 - 1
_ONLY = struct.pack("=I", 0)  # the key of a map with one entry


class DirectTables:
    """Opened and closed with the datapath."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._ring = Ring(maps["flows"])

    def close(self) -> None:
        self._ring.close()

    # Generation and lease

    def set_state(self, generation: int, lease_until_ns: int) -> None:
        """Void the verdicts of all other generations. (0, 0): nothing goes direct."""
        if not 0 <= generation <= _GENERATION_MAX:
            raise ValueError(f"generation {generation}")
        value = layout.DirectState(generation=generation, lease_until_ns=lease_until_ns)
        self._maps["direct_state"].update(_ONLY, bytes(value))

    def state(self) -> tuple[int, int]:
        """(generation, end of the lease) in force."""
        raw = self._maps["direct_state"].lookup(_ONLY)
        if raw is None:
            return 0, 0
        value = layout.DirectState.from_buffer_copy(raw)
        return value.generation, value.lease_until_ns

    # Verdicts and services, by workload ids

    def put_verdict(self, source: int, destination: int, port: int, generation: int) -> None:
        """Let the source talk to that port of the destination, in that generation."""
        if not (source and destination and generation):
            raise ValueError("a verdict for nobody, or of no generation")
        key = verdict_key(source, destination, port)
        self._maps["verdicts"].update(bytes(key), struct.pack("=Q", generation))

    def put_service(
        self, source: int, vip: Address, port: int, total: int, endpoints: Sequence[LocalEndpoint]
    ) -> None:
        """Write the service's endpoints on this node that this source may choose."""
        key, value = service_key(source, vip, port), service_value(total, endpoints)
        self._maps["services"].update(bytes(key), bytes(value))

    def drop_service(self, source: int, vip: Address, port: int) -> None:
        self._maps["services"].delete(bytes(service_key(source, vip, port)))

    def drop_services(self) -> None:
        """Drop the services of all sources."""
        for key in list(self._maps["services"]):
            self._maps["services"].delete(key)

    # Reports

    def flow_fd(self) -> int:
        """Descriptor for epoll, readable when there are reports. The datapath closes it."""
        return self._ring.fileno()

    def read_flows(self, limit: int) -> list[FlowReport]:
        return [parse_record(record) for record in self._ring.read(limit)]

    def socket_fd(self) -> int:
        """Descriptor of the socket storage in which connect() leaves a `DirectSocket`."""
        return self._maps["direct_socket"].fd

    def open_flow(self, cookie: int, data: bytes) -> FlowReport | None:
        """The open connection behind a socket with that storage; None: not a direct one."""
        return parse_socket(cookie, data, time.monotonic_ns())

    def lost_flows(self) -> int:
        """Number of reports, ever, that found the ring full."""
        cpus = cpu_count_possible()
        key = struct.pack("=I", layout.Counter.FLOW_LOST)
        raw = self._maps["counters"].lookup(key, 8 * cpus) or b""
        return sum(struct.unpack(f"={len(raw) // 8}Q", raw))

    def unread_bytes(self) -> int:
        return self._ring.unread_bytes()
