"""The kernel's tables as the direct path needs them; their layout is the datapath's business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.datapath.entries import LocalEndpoint
from agent.datapath.flows import FlowReport
from control.model.address import Address


class Tables(Protocol):
    """Tables of one node. A call takes a few system calls; KernelError when the kernel refuses."""

    def state(self) -> tuple[int, int]:
        """(generation, end of the lease in nanoseconds of CLOCK_MONOTONIC) in force."""

    def set_state(self, generation: int, lease_until_ns: int) -> None: ...

    def put_verdict(self, source: int, destination: int, port: int, generation: int) -> None: ...

    def put_service(
        self, source: int, vip: Address, port: int, total: int, endpoints: Sequence[LocalEndpoint]
    ) -> None: ...

    def drop_service(self, source: int, vip: Address, port: int) -> None: ...

    def drop_services(self) -> None:
        """Drop the services of all sources."""

    def flow_fd(self) -> int:
        """Descriptor that is readable when there are reports."""

    def socket_fd(self) -> int:
        """Descriptor of the socket storage that `open_flow` reads."""

    def open_flow(self, cookie: int, data: bytes) -> FlowReport | None: ...

    def read_flows(self, limit: int) -> list[FlowReport]: ...

    def lost_flows(self) -> int:
        """Number of reports, ever, that found the ring full."""
