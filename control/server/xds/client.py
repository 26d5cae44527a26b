"""One open stream, as its service and the admin pages see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from control.server.callers.budget import Tenant
from control.server.callers.tokens import Caller
from control.server.xds.cache import Change
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb

NODE_ID_CHARS_MAX = 256
NACK_CHARS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Nack:
    """A client's last word on what it did not take."""

    client: str
    type_url: str
    at: datetime
    error: str


@dataclass(slots=True, eq=False)
class Client:
    node_id: str
    caller: Caller
    peer: str
    since: datetime
    session: DeltaSession
    taken: Callable[[], object] = bool
    names_bytes: int = 0  # share of NAMES that it holds
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # nothing is being written

    def __post_init__(self) -> None:
        self.idle.set()

    def hear(self, change: Change) -> None:
        """News, of which some may be for it."""
        if self.session.changed(change):
            self.wake.set()

    @property
    def tenant(self) -> Tenant:
        return self.caller.tenant

    @property
    def kind(self) -> str:
        return "node" if self.caller.waypoint is None else "waypoint"

    @property
    def words(self) -> dict[str, str]:
        """Fields of log lines: who it is by its token, whatever it calls itself."""
        return {**self.caller.words, "client": self.node_id, "peer": self.peer}


def claimed_node(node: pb.Node) -> str:
    value = node.metadata.fields.get("NODE_NAME")
    return value.string_value if value is not None else ""
