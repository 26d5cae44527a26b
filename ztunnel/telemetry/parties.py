"""The two ends of one connection, and the closed sets of words for it; values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from control.model.address import Endpoint, format_address
from control.model.identity import SpiffeId
from control.model.workload import Service, Workload
from ztunnel.mesh.roles import Asked, Target
from ztunnel.refusals import Flag
from ztunnel.tenants.tenancy import Tenancy


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
    told: tuple[int, ...] = ()  # the counts that the supervisor has
    # Those last counted here: uids of source and destination, key of the service.
    names: tuple[str, ...] = ()
    gone: bool = False  # dropped: count elsewhere
    payer: Tenancy | None = None  # whose label set it is

    @property
    def open(self) -> int:
        """Connections that will be counted here once more."""
        return self.opened - self.finished - sum(self.closed.values())

    def is_told(self) -> bool:
        """True if nothing has changed since the last call."""
        now = (
            self.opened,
            self.finished,
            self.received_bytes,
            self.sent_bytes,
            sum(self.closed.values()),
            sum(self.failed.values()),
        )
        if now == self.told:
            return True
        self.told = now
        return False


class Memo:
    """Facts that all connections between the same parties share, found once. Kept beside the
    code that makes their `Parties`; valid for those that differ only in the client's address."""

    __slots__ = ("log_text", "series")

    def __init__(self) -> None:
        self.series: Series | None = None  # their counters
        self.log_text = ""  # the middle of their lines


@dataclass(slots=True)
class Parties:
    """Both ends of a connection, as far as known. Filled while it is being set up."""

    reporter: Reporter
    source_address: Endpoint
    destination_address: Endpoint  # dialled or accepted: the tunnel's, for HBONE
    source: Workload | None = None
    destination: Workload | None = None
    service: Service | None = None
    target: Target | None = None  # the pod's own port, when it is inside a tunnel
    source_identity: SpiffeId | None = None  # verified by TLS, else None
    destination_identity: SpiffeId | None = None
    original: Asked | None = None  # what the client dialled
    policy: str | None = None  # the ALLOW policy that matched
    direct: bool = False  # carried by the kernel, past every tunnel; the identities are its word
    measured: tuple[int, int] | None = None  # from the kernel: srtt in us, retransmits
    memo: Memo | None = None
    tenant: Tenancy | None = None  # who pays for the connection
