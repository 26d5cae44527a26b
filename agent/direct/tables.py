"""What the direct path needs of the kernel's tables; says nothing about how they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from control.model.address import Address, Endpoint


@dataclass(frozen=True, slots=True)
class Slot:
    """A local endpoint of a service and its share of the service's `total`."""

    weight: int
    destination: int  # workload id
    target: Endpoint


class FlowEvent(NamedTuple):
    """One record of the ring: a direct connection was opened, or is over."""

    id: int
    is_closed: bool
    source: int  # workload ids
    destination: int
    client: Endpoint
    target: Endpoint
    original: Endpoint  # what the application dialled
    age_s: float = 0.0
    sent: int = 0
    received: int = 0
    srtt_us: int = 0
    retransmits: int = 0
    error: str = ""  # failed: never established; aborted: not ended by both sides


class Tables(Protocol):
    """One node's. Each call is one or a few system calls; KernelError when the kernel refuses."""

    def state(self) -> tuple[int, int]:
        """(generation, end of the lease in nanoseconds of CLOCK_MONOTONIC) as in force."""

    def set_state(self, generation: int, lease_until_ns: int) -> None: ...

    def put_verdict(self, source: int, destination: int, port: int, generation: int) -> None: ...

    def put_service(
        self, source: int, vip: Address, port: int, total: int, slots: Sequence[Slot]
    ) -> None: ...

    def drop_service(self, source: int, vip: Address, port: int) -> None: ...

    def drop_services(self) -> None:
        """All of them: whose they were is not known any more."""

    def flow_fd(self) -> int:
        """Readable when the ring has something."""

    def socket_fd(self) -> int:
        """The map with what is known of each direct socket, for `open_flow`."""

    def open_flow(self, cookie: int, data: bytes) -> FlowEvent | None: ...

    def read_flows(self, limit: int) -> list[FlowEvent]: ...

    def lost_flows(self) -> int:
        """How many events found the ring full, ever."""
