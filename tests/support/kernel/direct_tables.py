"""The kernel's tables of the direct path, in memory; every call is kept in order."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from agent.datapath.entries import LocalEndpoint
from agent.datapath.errors import DatapathError
from agent.datapath.flows import FlowReport
from control.model.address import Address


class FakeTables:
    def __init__(self, generation: int = 0) -> None:
        self.in_force = (generation, 0)
        self.calls: list[tuple[Any, ...]] = []
        self.refuse: set[str] = set()
        self.lost = 0
        self._events: list[FlowReport] = []
        self._signal, self._ring = socket.socketpair()
        self._ring.setblocking(False)

    def close(self) -> None:
        self._signal.close()
        self._ring.close()

    def happen(self, *events: FlowReport) -> None:
        self._events += events
        self._signal.send(b"x")

    def _call(self, name: str, *arguments: Any) -> None:
        if name in self.refuse:
            raise DatapathError(f"{name} refused")
        self.calls.append((name, *arguments))

    def taken(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls

    def state(self) -> tuple[int, int]:
        return self.in_force

    def set_state(self, generation: int, lease_until_ns: int) -> None:
        self._call("set_state", generation, lease_until_ns)
        self.in_force = (generation, lease_until_ns)

    def put_verdict(self, source: int, destination: int, port: int, generation: int) -> None:
        self._call("put_verdict", source, destination, port, generation)

    def put_service(
        self, source: int, vip: Address, port: int, total: int, endpoints: Sequence[LocalEndpoint]
    ) -> None:
        self._call("put_service", source, vip, port, total, tuple(endpoints))

    def drop_service(self, source: int, vip: Address, port: int) -> None:
        self._call("drop_service", source, vip, port)

    def drop_services(self) -> None:
        self._call("drop_services")

    def flow_fd(self) -> int:
        return self._ring.fileno()

    def socket_fd(self) -> int:
        return -1

    def open_flow(self, cookie: int, data: bytes) -> FlowReport | None:
        return None

    def lost_flows(self) -> int:
        return self.lost

    def read_flows(self, limit: int) -> list[FlowReport]:
        found, self._events = self._events[:limit], self._events[limit:]
        if not self._events:
            try:
                self._ring.recv(4096)
            except BlockingIOError:
                pass
        return found
