"""What the control plane wants of this node's pods, and telling it what is in force.

Both directions keep trying for ever; neither ever changes what is captured by being away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from google.protobuf.message import DecodeError

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError, MeshError
from control.kit.log import event
from control.model.address import Address, canonical
from control.wire import node_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo, Update
from control.wire.types import POD_TYPE

log = logging.getLogger("intents")

RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.1, 10.0
# A stream that lived this long was a good one: start the back-off anew.
STABLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Intent:
    uid: str
    namespace: str
    name: str
    service_account: str
    addresses: tuple[Address, ...]
    enrolled: bool
    reason: str
    direct: bool = False  # may the kernel carry its connections inside the node?
    direct_reason: str = ""


def parse_intent(resource: bytes, name: str, node: str) -> Intent:
    """ValueError: this resource cannot be used; it is refused by name and the others are kept."""
    try:
        message = pb.Pod.FromString(resource)
    except DecodeError as exc:
        raise ValueError("not a tulle.node.v1.Pod") from exc
    if message.uid != name or not message.uid:
        raise ValueError(f"uid {message.uid!r} under the name {name!r}")
    if message.node != node:
        raise ValueError(f"a pod of node {message.node!r}")
    if not message.name or not message.namespace:
        raise ValueError("a pod without name or namespace")
    return Intent(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        service_account=message.service_account or "default",
        addresses=tuple(canonical(raw) for raw in message.addresses),
        enrolled=message.enrolled,
        reason=message.reason,
        direct=message.direct,
        direct_reason=message.direct_reason,
    )


class Stream(Protocol):
    """One delta xDS stream; both ends raise ControlError when it breaks."""

    async def write(self, data: bytes) -> None: ...

    async def read(self) -> bytes | None:
        """None: the server ended the stream."""


Connect = Callable[[], AbstractAsyncContextManager[Stream]]
Changed = Callable[[dict[str, Intent], Collection[str]], None]  # new or changed, and removed uids


@dataclass(slots=True)
class Connection:
    """For status and metrics."""

    address: str
    connected: bool = False
    since: datetime | None = None  # of `connected`
    error: str = ""
    heard_s: float | None = None  # monotonic: the last message


class Intents:
    """The subscription. `changed` is called with whole resources, in order, before each ACK."""

    def __init__(
        self,
        node: str,
        address: str,
        connect: Connect,
        clock: Clock,
        backoff: Backoff | None = None,
    ) -> None:
        self._backoff = backoff or Backoff(RECONNECT_FIRST_S, RECONNECT_MAX_S)
        self._node = node
        self._connect = connect
        self._clock = clock
        info = NodeInfo(id=f"agent~{node}", metadata={"NODE_NAME": node, "NAME": f"agent-{node}"})
        self._delta = DeltaClient(info, [POD_TYPE])
        self.connection = Connection(address, since=clock.now())
        self.connects = 0  # streams that were answered; each one asks for a fresh report

    @property
    def synced(self) -> bool:
        return self._delta.synced

    async def run(self, changed: Changed) -> None:
        while True:
            started_s = self._clock.monotonic_s()
            try:
                async with self._connect() as stream:
                    await self._follow(stream, changed)
                error = "the control plane ended the stream"
            except (MeshError, OSError) as exc:
                error = str(exc)
            self._lost(error)
            if self._clock.monotonic_s() - started_s > STABLE_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    async def _follow(self, stream: Stream, changed: Changed) -> None:
        for request in self._delta.opening():
            await stream.write(request.SerializeToString())
        while (data := await stream.read()) is not None:
            update = self._delta.receive(data)
            self._heard()
            rejected = self._apply(update, changed)
            answer = self._delta.acknowledge(update.type_url, update.nonce, rejected)
            await stream.write(answer.SerializeToString())

    def _apply(self, update: Update, changed: Changed) -> dict[str, str]:
        fresh: dict[str, Intent] = {}
        rejected: dict[str, str] = {}
        for each in update.added:
            try:
                fresh[each.name] = parse_intent(each.resource, each.name, self._node)
            except ValueError as exc:
                rejected[each.name] = str(exc)
                event(log, logging.WARNING, "intent.rejected", uid=each.name, error=exc)
        changed(fresh, update.removed)
        return rejected

    def _heard(self) -> None:
        self.connection.heard_s = self._clock.monotonic_s()
        if not self.connection.connected:
            self.connects += 1
            self.connection.connected, self.connection.error = True, ""
            self.connection.since = self._clock.now()
            event(log, logging.INFO, "control.connected", address=self.connection.address)

    def _lost(self, error: str) -> None:
        if self.connection.connected or not self.connection.error:
            self.connection.since = self._clock.now()
            address = self.connection.address
            event(log, logging.WARNING, "control.lost", address=address, error=error)
        self.connection.connected, self.connection.error = False, error


Send = Callable[[bytes], Awaitable[None]]  # ControlError when it was not accepted


class Reporter:
    """Sends the whole truth whenever it differs from what was accepted, one report at a time."""

    def __init__(self, node: str, send: Send) -> None:
        self._node = node
        self._send = send
        self._accepted: tuple[int, frozenset[str]] | None = None

    def is_due(self, connects: int, captured: frozenset[str]) -> bool:
        """After each reconnect too: the server may be another one."""
        return connects > 0 and self._accepted != (connects, captured)

    async def report(self, connects: int, captured: frozenset[str]) -> None:
        request = pb.ReportRequest(node=self._node, captured_uids=sorted(captured))
        await self._send(request.SerializeToString())
        self._accepted = (connects, captured)
        event(log, logging.DEBUG, "report.accepted", captured=len(captured))


class NoControl(ControlError):
    reason = "control_unreachable"
