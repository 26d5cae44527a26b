"""Commands of the ledger to the shell that carries them out, in the order given. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from agent.datapath.entries import LocalEndpoint, PlaintextRules
from agent.direct.flows import DirectFlow
from control.model.address import Address

ServiceKey = tuple[int, Address, int]  # source workload, VIP, port


@dataclass(frozen=True, slots=True)
class SetState:
    """Put a generation and the end of its lease in force."""

    generation: int
    lease_until_ns: int


@dataclass(frozen=True, slots=True)
class PutVerdict:
    source: int
    destination: int
    port: int
    generation: int


@dataclass(frozen=True, slots=True)
class PutService:
    key: ServiceKey
    total: int
    endpoints: tuple[LocalEndpoint, ...]


@dataclass(frozen=True, slots=True)
class DropService:
    key: ServiceKey


@dataclass(frozen=True, slots=True)
class SetPlaintext:
    """Refuse, or no longer refuse, plaintext at ports of a pod."""

    uid: str
    rules: PlaintextRules


@dataclass(frozen=True, slots=True)
class Send:
    """Send a line to a peer."""

    peer: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Destroy:
    """End a connection that is not allowed any more."""

    flow: DirectFlow


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End a peer's connection."""

    peer: int
    reason: str


Command = SetState | PutVerdict | PutService | DropService | SetPlaintext | Send | Destroy | Dismiss
