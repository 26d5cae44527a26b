"""Subscribes to the intents for this node's pods, and reports which captures are in force.

Both directions retry for ever. A control plane that is away changes nothing that is captured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError, MeshError, WireError
from control.kit.log import event
from control.model.address import Address
from control.model.intent import Intent, NamespaceIntent
from control.wire import node_pb2 as pb
from control.wire.convert import address_from_wire
from control.wire.convert_node import decode_intent, decode_namespace
from control.wire.delta import DeltaClient, NodeInfo, Update
from control.wire.types import NAMESPACE_TYPE, POD_TYPE

log = logging.getLogger("intents")

RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.1, 10.0
REPLICA_CHARS_MAX = 64  # a control plane's name for itself
ADDRESSES_MAX = 64  # taken from one answer, as the wire has it
# A stream that lived this long was a good one: the back-off starts again.
STABLE_S = 10.0


def parse_intent(resource: bytes, name: str, node: str) -> Intent:
    """Parse the resource called `name` for our `node`; WireError: it is refused, by name."""
    intent = decode_intent(resource)
    if intent.uid != name:
        raise WireError(f"uid {intent.uid!r} under the name {name!r}")
    if intent.node != node:
        raise WireError(f"a pod of node {intent.node!r}")
    return intent


def parse_namespace(resource: bytes, name: str) -> NamespaceIntent:
    """Parse the resource called `name`; WireError: it is refused, by name."""
    found = decode_namespace(resource)
    if found.name != name:
        raise WireError(f"namespace {found.name!r} under the name {name!r}")
    return found


class DeltaStream(Protocol):
    """One delta xDS stream; both methods raise ControlError when it breaks."""

    async def write(self, data: bytes) -> None: ...

    async def read(self) -> bytes | None:
        """Next response, or None once the server has ended the stream."""


Connect = Callable[[], AbstractAsyncContextManager[DeltaStream]]
# Called with the new or changed intents by uid, and with the removed uids.
Changed = Callable[[dict[str, Intent], Collection[str]], None]
# Called likewise with namespaces by name.
NamespacesChanged = Callable[[dict[str, NamespaceIntent], Collection[str]], None]


@dataclass(slots=True)
class ControlLink:
    """State of the stream, for status and metrics."""

    address: str
    connected: bool = False
    since: datetime | None = None  # when `connected` last changed
    error: str = ""
    heard_s: float | None = None  # monotonic time of the last message


class Intents:
    """Subscription to the intents. `changed` gets whole resources, in order, before each ACK; so
    does `namespaces`, if somebody wants these."""

    def __init__(
        self,
        node: str,
        address: str,
        connect: Connect,
        clock: Clock,
        backoff: Backoff | None = None,
        namespaces: NamespacesChanged | None = None,
    ) -> None:
        self._namespaces = namespaces
        self._backoff = backoff or Backoff(RECONNECT_FIRST_S, RECONNECT_MAX_S)
        self._node = node
        self._connect = connect
        self._clock = clock
        info = NodeInfo(id=f"agent~{node}", metadata={"NODE_NAME": node, "NAME": f"agent-{node}"})
        self._delta = DeltaClient(
            info, [POD_TYPE] if namespaces is None else [POD_TYPE, NAMESPACE_TYPE]
        )
        self.connection = ControlLink(address, since=clock.now())
        self.connects = 0  # streams that were answered; each one makes a report due

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

    async def _follow(self, stream: DeltaStream, changed: Changed) -> None:
        for request in self._delta.opening():
            await stream.write(request.SerializeToString(deterministic=True))
        while (data := await stream.read()) is not None:
            update = self._delta.receive(data)
            self._heard()
            rejected = self._apply(update, changed)
            answer = self._delta.acknowledge(update.type_url, update.nonce, rejected)
            await stream.write(answer.SerializeToString())

    def _apply(self, update: Update, changed: Changed) -> dict[str, str]:
        """Hand on what is good; name → error of the rest."""
        if update.type_url == NAMESPACE_TYPE and self._namespaces is not None:
            named, rejected = _parsed(update, parse_namespace)
            self._namespaces(named, update.removed)
        else:
            fresh, rejected = _parsed(update, lambda data, uid: parse_intent(data, uid, self._node))
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


Parsed = TypeVar("Parsed")


def _parsed(
    update: Update, parse: Callable[[bytes, str], Parsed]
) -> tuple[dict[str, Parsed], dict[str, str]]:
    fresh: dict[str, Parsed] = {}
    rejected: dict[str, str] = {}
    for each in update.added:
        try:
            fresh[each.name] = parse(each.resource, each.name)
        except WireError as exc:
            rejected[each.name] = str(exc)
            event(log, logging.WARNING, "intent.rejected", name=each.name, error=exc)
    return fresh, rejected


# The answer to a report; ControlError: it was not accepted.
Send = Callable[[bytes], Awaitable[bytes]]
Said = Callable[[Sequence[Address]], None]


CaptureReport = Mapping[str, tuple[Address, ...]]  # uid → addresses


class CaptureReporter:
    """Sends the whole captured set whenever the server has not accepted it, one at a time."""

    def __init__(self, node: str, send: Send, said: Said = lambda addresses: None) -> None:
        """`said` hears of each answer the addresses of all replicas; none: it does not say."""
        self._node = node
        self._send = send
        self._said = said
        self._accepted: tuple[int, CaptureReport] | None = None
        self.replica = ""  # who accepted it, by a name of its own; empty: it did not say

    def is_due(self, connects: int, captured: CaptureReport) -> bool:
        """True if the server lacks this set; after a reconnect too, as it may be another one."""
        if self._accepted is None or self._accepted[0] != connects:
            return connects > 0
        # Most often it is the same object, and nothing is compared.
        return self._accepted[1] is not captured and self._accepted[1] != captured

    def forget(self) -> None:
        """Somebody else has told the server since: what it accepted from us says nothing."""
        self._accepted = None

    async def report(self, connects: int, captured: CaptureReport) -> None:
        request = pb.ReportRequest(node=self._node, captured_uids=sorted(captured))
        for uid, addresses in sorted(captured.items()):
            request.captured_pods.add(uid=uid, addresses=addresses)
        answer = await self._send(request.SerializeToString(deterministic=True))
        self._accepted = (connects, captured)
        self.replica, all_of_them = _parsed_answer(answer)
        self._said(all_of_them)
        event(log, logging.DEBUG, "report.accepted", captured=len(captured))


def _parsed_answer(answer: bytes) -> tuple[str, list[Address]]:
    """The replica's name for itself, and all addresses; nothing of an answer that makes no sense,
    as the report counts in any case."""
    try:
        found = pb.ReportResponse.FromString(answer)
        addresses = [address_from_wire(each) for each in found.replica_addresses[:ADDRESSES_MAX]]
    except (DecodeError, WireError):
        return "", []
    return found.replica[:REPLICA_CHARS_MAX], addresses


class NoControl(ControlError):
    reason = "control_unreachable"
