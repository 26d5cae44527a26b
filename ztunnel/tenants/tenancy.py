"""Somebody who uses this worker, as a record of what is held and owed. Decides nothing."""

from __future__ import annotations

from enum import Enum
from typing import Final

from control.model.address import Address, format_address

# Entries of `Tenancy.held`, by the numbers of the bounds.
QUOTAS: Final = 8
_PREFIX_BYTES: Final = 8  # a host commonly has a whole IPv6 /64 to itself
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Kind(Enum):
    POD = "pod"  # on this node, by its namespace and name
    PEER = "peer"  # a remote identity, verified by TLS
    SOURCE = "source"  # an address, before or without an identity
    DOOR = "door"  # a listener, until it is known who came


class Tenancy:
    """`held` counts what it holds of each bound. Times are monotonic."""

    __slots__ = (
        "cpu_s",
        "debt_s",
        "ends_at_s",
        "ends_owed",
        "held",
        "kind",
        "left_out",
        "lines_at_s",
        "lines_owed",
        "name",
        "not_before_s",
        "paid_at_s",
        "refused",
        "slowed",
        "stranger",
        "tight",
        "trusted",
    )

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind: Final = kind
        self.name: Final = name
        self.stranger: Final = kind in {Kind.SOURCE, Kind.DOOR}
        self.held = [0] * QUOTAS
        # Work that led to nothing, in seconds of CPU, as of `paid_at_s`.
        self.debt_s = 0.0
        self.paid_at_s = 0.0
        self.not_before_s = 0.0  # nothing more of it is read before
        self.lines_owed = 0.0
        self.lines_at_s = 0.0
        self.ends_owed = 0.0  # lines about connections that were open
        self.ends_at_s = 0.0
        self.left_out = 0  # log lines since the last one that was written
        self.refused = 0
        self.tight = False  # it has as many bytes waiting here as it may
        self.cpu_s = 0.0
        self.slowed = 0  # turns in which it had less time than it could use, as it had had more
        # Something of what it asked for was of use, and it has not owed more than its burst since.
        self.trusted = False

    def inherit(self, gone: Tenancy) -> None:
        """Count what somebody did that is not remembered any more."""
        self.cpu_s += gone.cpu_s
        self.slowed += gone.slowed
        self.refused += gone.refused
        self.left_out += gone.left_out

    @property
    def returns(self) -> bool:
        """True for somebody who waits for answers, and comes back with them."""
        return self.kind is not Kind.DOOR

    @property
    def idle(self) -> bool:
        return not any(self.held)

    def __repr__(self) -> str:
        return f"{self.kind.value}:{self.name}"


def source_name(address: Address) -> str:
    """The tenant of a stranger: its IPv4 address, or its IPv6 /64. A v4-mapped address is its IPv4
    address."""
    if len(address) == 4:
        return format_address(address)
    if address.startswith(_MAPPED):
        return format_address(Address(address[12:]))
    return format_address(Address(address[:_PREFIX_BYTES] + bytes(16 - _PREFIX_BYTES))) + "/64"
