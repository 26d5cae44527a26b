"""A client's view: which types it is shown, in which ways it may ask for them, and in which order
it is told. The session is the same for all clients; views differ by who they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from control.server.xds.again import Again
from control.server.xds.asking import Asking
from control.server.xds.by_name import ByName
from control.server.xds.follower import Follower
from control.server.xds.names import KeptNames
from control.server.xds.picker import Picker
from control.server.xds.shelf import Shelf
from control.server.xds.subscription import Unserved
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word

Way: TypeAlias = Asking | Follower | ByName | Picker | Unserved
WILDCARD = "*"


@dataclass(slots=True)
class TypeState:
    """One type that a client has subscribed to, and in which way."""

    way: Way
    asked: set[str] = field(default_factory=set)  # names, while the way is by name or was
    in_flight: str = ""
    answered: bool = False  # the first response went out, even if empty
    acked: str = ""
    nacked: str = ""
    nacks: int = 0
    again: Again | None = None  # refused; None: the client says what it took and what not


States: TypeAlias = Mapping[str, TypeState]


class View(Protocol):
    @property
    def types(self) -> Collection[str]:
        """Those that it is shown."""

    @property
    def order(self) -> Sequence[str]:
        """The order in which it is told of them."""

    @property
    def names(self) -> KeptNames:
        """Account of the names that it makes us keep."""

    @property
    def response_bytes_max(self) -> int:
        """Size of a response, about."""

    def shelf(self, type_url: str) -> Shelf | None:
        """Resources of a type, if it is one of these."""

    def open(self, request: pb.DeltaDiscoveryRequest, held: Mapping[str, str]) -> TypeState:
        """A first request for a type of these. Raises WireError."""

    def resubscribe(self, state: TypeState, request: pb.DeltaDiscoveryRequest) -> None:
        """A later one, with names. Raises WireError."""

    def answered(self, type_url: str, state: TypeState, held: Mapping[str, str]) -> None:
        """The client has answered a response, and says what it holds if it was asked."""

    def waits(self, type_url: str, states: States) -> bool:
        """True while others have to be told before this type."""

    def withholds(self, type_url: str, states: States) -> bool:
        """True while others may name what is removed of this type."""

    def word(self, states: States) -> Word:
        """The word on the client's state, once it has applied everything that was sent."""


def names_asked(request: pb.DeltaDiscoveryRequest) -> tuple[set[str], set[str]]:
    """Names that a request subscribes to and those that it gives back, the wildcard among them."""
    return set(request.resource_names_subscribe), set(request.resource_names_unsubscribe)
