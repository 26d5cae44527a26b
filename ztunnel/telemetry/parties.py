"""Who takes part in one connection, and the closed sets of words for it; values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from control.model.address import Endpoint, format_address
from control.model.identity import SpiffeId
from control.model.workload import Service, Workload
from ztunnel.refusals import Flag


def endpoint_text(endpoint: Endpoint) -> str:
    """`str(endpoint)`, for each connection: compiled it is a third of that."""
    host = format_address(endpoint.address)
    return f"[{host}]:{endpoint.port}" if ":" in host else f"{host}:{endpoint.port}"


class Reporter(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(slots=True)
class Series:
    """The counters of one label set."""

    labels: dict[str, str]
    opened: int = 0
    finished: int = 0  # closed without a flag: nearly all, so without a table
    closed: dict[Flag, int] = field(default_factory=dict)
    failed: dict[Flag, int] = field(default_factory=dict)
    received_bytes: int = 0
    sent_bytes: int = 0


class Memo:
    """What is the same about all connections between the same parties, found once. It belongs to
    whoever makes their `Parties`, and is good for those that differ in nothing but the client's
    address."""

    __slots__ = ("log_text", "series")

    def __init__(self) -> None:
        self.series: Series | None = None  # where they are counted
        self.log_text = ""  # the middle of their lines


@dataclass(slots=True)
class Parties:
    """Who talks to whom, as far as it is known. Filled while the connection is being set up."""

    reporter: Reporter
    source_address: Endpoint
    destination_address: Endpoint  # what was dialled or accepted: the tunnel, for HBONE
    source: Workload | None = None
    destination: Workload | None = None
    service: Service | None = None
    target: Endpoint | None = None  # the pod's own port, when it is inside a tunnel
    source_identity: SpiffeId | None = None  # verified by TLS, else None
    destination_identity: SpiffeId | None = None
    original: Endpoint | None = None  # what the client dialled
    policy: str | None = None  # the ALLOW policy that matched
    direct: bool = False  # the kernel carried it, past every tunnel; identities are its word
    measured: tuple[int, int] | None = None  # by the kernel: srtt in us, retransmits
    memo: Memo | None = None
