"""Delta xDS stream: keeps the node's state current and passes every change on. Never decides.

While the control plane is away the last good state stays. A new stream tells the server which
versions are held, and only differences come back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import grpc
import grpc.aio

from control.kit.backoff import Backoff
from control.kit.errors import ControlError, WireError
from control.kit.log import event
from control.kit.memory import release
from control.wire import discovery_pb2 as pb
from control.wire.channel import open_channel
from control.wire.delta import SIZE_HEADER, DeltaClient, NodeInfo, Update, Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, DELTA_METHOD
from ztunnel.access import CONNECT_TIMEOUT_S, call_metadata, roots_pem
from ztunnel.config import ZtunnelConfig
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.supervisor.demand import Demand, Refuse
from ztunnel.supervisor.inbox import Inbox
from ztunnel.supervisor.outage import Outage
from ztunnel.supervisor.scope import AddressScope, size_in
from ztunnel.supervisor.settling import Settling

log = logging.getLogger("xds")

BACKOFF_INITIAL_S = 0.01
BACKOFF_MAX_S = 15.0
# A response of thousands of resources: the memory that it needed goes back at once.
LARGE_BYTES = 256 * 1024
# One step of a large update takes about half a millisecond. The workers share their core with us,
# so after each step we rest for REST_RATIO times as long: 10,000 workloads take two seconds. The
# very first update takes no rests, because the workers wait for it.
STEP_ENTRIES = 16
REST_RATIO = 4.0
LOOK_S = 60.0  # between looks at the size of the mesh

_PUT = {ADDRESS_TYPE: Op.ADDRESS, AUTHORIZATION_TYPE: Op.POLICY}
_REMOVE = {ADDRESS_TYPE: Op.REMOVE_ADDRESS, AUTHORIZATION_TYPE: Op.REMOVE_POLICY}

TYPES = ADDRESS_TYPE, AUTHORIZATION_TYPE

_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Publish = Callable[[list[Entry]], Awaitable[None]]
Send = Callable[[bytes], Awaitable[None]]


class XdsEnded(ControlError):
    reason = "stream_ended"


@dataclass(slots=True)
class XdsStatus:
    """State of the stream, for readiness, the admin page and the metrics."""

    connected: bool = False
    error: str = ""
    synced: bool = False
    messages: Counter[str] = field(default_factory=Counter)
    message_bytes: Counter[str] = field(default_factory=Counter)
    terminations: Counter[str] = field(default_factory=Counter)


def node_info(config: ZtunnelConfig) -> NodeInfo:
    """Our identity in Istio's form; the server checks its parts against our token."""
    namespace = config.pod_namespace
    identifier = "~".join(
        (
            "ztunnel",
            config.instance_ip,
            f"{config.pod_name}.{namespace}",
            f"{namespace}.svc.{config.trust_domain}",
        )
    )
    metadata = {
        "NAME": config.pod_name,
        "NAMESPACE": namespace,
        "INSTANCE_IPS": config.instance_ip,
        "NODE_NAME": config.node,
        "CLUSTER_ID": config.cluster_id,
        "NETWORK": config.network,
        "SERVICE_ACCOUNT": config.service_account,
    }
    return NodeInfo(identifier, "ztunnel", metadata)


def entries_of(update: Update) -> Iterator[Entry]:
    """Entries for a `State`. Additions come first, so that while a pod or a policy is replaced
    both exist for a moment, rather than neither."""
    for added in update.each():
        yield Entry(_PUT[update.type_url], added.name, added.resource)
    if update.type_url == AUTHORIZATION_TYPE:
        for name in update.malformed:
            yield Entry(Op.REJECTED_POLICY, name)
    for name in update.removed:
        yield Entry(_REMOVE[update.type_url], name)


def accept(state: State, batch: list[Entry]) -> tuple[list[Entry], dict[str, str]]:
    """Apply entries to a strict state. Returns those for the workers, and name -> why of the rest.

    A worker has to know that a policy was refused: it may have no good version of it either.
    """
    state.apply(batch)
    rejected = state.take_rejected()
    accepted: list[Entry] = []
    for entry in batch:
        if entry.name not in rejected or entry.op not in _PUT.values():
            accepted.append(entry)
        elif entry.op is Op.POLICY:
            accepted.append(Entry(Op.REJECTED_POLICY, entry.name, entry.body))
    return accepted, rejected


class XdsClient:
    """Follows the stream. `publish` gets the accepted entries, in order, for the workers; nothing
    more is applied until it returns."""

    def __init__(
        self,
        config: ZtunnelConfig,
        state: State,
        publish: Publish,
        on_connected: Callable[[], None] = lambda: None,
        refuse: Refuse = lambda _pod, _names, _reason: None,
    ) -> None:
        """`refuse` is told of names that will have no answer, where addresses come on demand."""
        self._on_connected = on_connected
        self._config = config
        self._state = state
        self._publish = publish
        self._scope = AddressScope(config.addresses)
        self._delta = DeltaClient(node_info(config), TYPES)
        self._turn = asyncio.Lock()  # one batch after the other
        self.demand = Demand(self._delta, state, self._pass_on, refuse)
        self._awaits_all = False  # addresses come on demand until all of them are here
        self._settling = Settling(TYPES)
        # By type and nonce, of responses that are read and not applied. Types may share a nonce.
        self._numbers: dict[tuple[str, str], int] = {}
        self._hurried = asyncio.Event()
        self._sending = asyncio.Lock()
        self.inbox = Inbox()
        self.status = XdsStatus()
        self._outage = Outage()

    async def run(self) -> None:
        """Connect, follow the stream, and start again after a growing pause, until cancelled."""
        backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        self.demand.lost()
        if self._scope.on_demand:
            await self._turn_to(on_demand=True)
        while True:
            before = self.status.messages.total()
            try:
                await self._stream()
            except* (ControlError, WireError, grpc.aio.AioRpcError, TimeoutError) as group:
                self._ended(group.exceptions[0])
            if self.status.messages.total() > before:
                backoff.reset()
            try:
                async with asyncio.timeout(backoff.next_s()):
                    await self._hurried.wait()
            except TimeoutError:
                pass
            self._hurried.clear()

    def hurry(self) -> None:
        """The control plane is there again: do not sit out a pause."""
        if not self.status.connected:
            self._hurried.set()

    def _ended(self, exc: Exception) -> None:
        status = self.status
        reason = _termination(exc, connected=status.connected)
        status.terminations[reason] += 1
        status.connected = False
        self.demand.lost()
        status.error = explain(exc)
        kind = f"{reason} {status.error.partition(':')[0]}"
        tries = self._outage.broken(kind, asyncio.get_running_loop().time())
        if tries is not None:
            error = status.error
            event(log, logging.WARNING, "xds.disconnected", reason=reason, error=error, tries=tries)

    async def _stream(self) -> None:
        config = self._config
        metadata = call_metadata(config.token, config.cluster_id)
        channel = open_channel(config.control, roots_pem(config.control_root), config.control_name)
        try:
            stream = channel.stream_stream(DELTA_METHOD, bytes, bytes)
            call = stream(None, metadata=metadata)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await call.wait_for_connection()
            self._settling.opened(asyncio.get_running_loop().time())
            self._numbers.clear()
            await self._open(call)
            self.status.connected = True
            self.status.error = ""
            self._outage.connected()
            event(log, logging.INFO, "xds.connected", address=config.control)
            self._on_connected()
            inbox = self.inbox = Inbox()  # the server repeats whatever an earlier stream left there
            send = functools.partial(self._send, call)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(call, inbox), name="xds.read")
                tasks.create_task(_beside(inbox, self.demand.send(send)), name="xds.ask")
                tasks.create_task(_beside(inbox, self._outgrow()), name="xds.outgrow")
                while True:
                    await self._wait(inbox, send)
        finally:
            await channel.close(None)

    async def _open(self, call: _Call) -> None:
        """Send the first requests. Where it goes by the mesh's size, that for addresses comes after
        the server's first word."""
        if self._scope.goes_by_size:
            await self._send_all(call, self._delta.opening([AUTHORIZATION_TYPE]))
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                header = (await call.initial_metadata()).get(SIZE_HEADER)
            if call.done():
                await call.read()  # raises the server's error: it has refused us, and said nothing
            if self._scope.heard(size_in(header), asyncio.get_running_loop().time()):
                await self._turn_to(on_demand=self._scope.on_demand)
        opening = self._delta.opening([ADDRESS_TYPE] if self._scope.goes_by_size else None)
        self.demand.opened()
        await self._send_all(call, opening)

    async def _send_all(self, call: _Call, requests: Iterable[pb.DeltaDiscoveryRequest]) -> None:
        for request in requests:
            await self._send(call, request.SerializeToString(deterministic=True))

    async def _turn_to(self, *, on_demand: bool) -> None:
        """Have the next stream's addresses come the other way. On demand, nothing is known from
        here on; before all of them are here, what is unknown is still not outside the mesh."""
        event(log, logging.INFO, "xds.addresses", on_demand=on_demand)
        self._delta.ask_by_name(ADDRESS_TYPE, on=on_demand)
        self._awaits_all = not on_demand
        if on_demand:
            self.demand.begin()
            await self._pass_on([Entry(Op.ON_DEMAND)])
        else:
            self.demand.end()

    async def _outgrow(self) -> None:
        """End the stream of a node that holds more than it needs, not all nodes at once."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * LOOK_S)
            counts = self._state.counts()
            held = counts["workloads"] + counts["services"]
            if self._scope.is_outgrown(held, asyncio.get_running_loop().time()):
                raise XdsEnded("the mesh has grown: addresses come on demand from now on")

    async def _wait(self, inbox: Inbox, send: Send) -> None:
        """Take the next response, or let time decide that nothing more belongs to earlier ones."""
        try:
            async with asyncio.timeout_at(self._settling.due_s()):
                update = await inbox.next()
        except TimeoutError:
            op = self._settling.elapsed(asyncio.get_running_loop().time())
            if op is not None:
                await self._pass_on([Entry(op)])
            return
        await self._take(update, send)

    async def _read(self, call: _Call, inbox: Inbox) -> None:
        """Read responses into the inbox. They are applied whole, even after the stream has ended:
        half an update would be known to the state and not to the workers."""
        try:
            while True:
                data = await call.read()
                if not isinstance(data, bytes):
                    raise XdsEnded("the server ended the stream")
                await inbox.put(self.receive(data))
        except (ControlError, WireError, grpc.aio.AioRpcError) as exc:
            await inbox.end(exc)

    async def _send(self, call: _Call, message: bytes) -> None:
        try:
            async with self._sending:
                await call.write(message)
        except asyncio.InvalidStateError as exc:  # gRPC's way to say that it has ended meanwhile
            raise XdsEnded("the stream ended before our message") from exc

    def receive(self, data: bytes) -> Update:
        update = self._delta.receive(data)
        self._numbers[update.type_url, update.nonce] = self._settling.number()
        self.status.messages[update.type_url] += 1
        self.status.message_bytes[update.type_url] += update.size_bytes
        return update

    async def _take(self, update: Update, send: Send) -> None:
        """Apply one response and answer it."""
        rejected = await self._apply(update, send)
        for name, why in rejected.items():
            event(log, logging.ERROR, "xds.rejected", resource=name, error=why)
        answer = self._delta.acknowledge(update.type_url, update.nonce, rejected)
        await self._settle(update)
        if self._awaits_all and update.type_url == ADDRESS_TYPE and _is_last(update):
            self._awaits_all = False
            await self._pass_on([Entry(Op.ALL)])
        if self._delta.synced and not self._state.synced:
            await self._pass_on([Entry(Op.SNAPSHOT)])
            self.status.synced = True
            event(log, logging.INFO, "xds.synced", **self._state.counts())
        await send(answer.SerializeToString())
        if update.size_bytes >= LARGE_BYTES:
            release()

    async def _settle(self, update: Update) -> None:
        now_s = asyncio.get_running_loop().time()
        op = self._settling.applied(
            self._numbers.pop((update.type_url, update.nonce)),
            update.type_url,
            update.word,
            now_s,
            settled=self._state.settled,
        )
        if op is not None:
            await self._pass_on([Entry(op)])

    async def _apply(self, update: Update, send: Send) -> dict[str, str]:
        """Apply in steps, so that a large update stops neither this process nor the workers."""
        rejected: dict[str, str] = {}
        entries = entries_of(update)
        if update.type_url == ADDRESS_TYPE:
            entries = self.demand.entries_of(update, entries)
        rest_s = 0.0
        started_s = time.thread_time()
        while batch := list(islice(entries, STEP_ENTRIES)):
            if rest_s or not self._state.synced:
                await asyncio.sleep(rest_s)
                started_s = time.thread_time()
            if update.type_url != AUTHORIZATION_TYPE:
                while (urgent := self.inbox.urgent()) is not None:
                    await self._take(urgent, send)
            rejected.update(await self._pass_on(batch))
            if self._state.synced:
                rest_s = REST_RATIO * (time.thread_time() - started_s)
        if update.type_url == ADDRESS_TYPE:
            await self.demand.answered(update)
        return rejected

    async def _pass_on(self, batch: list[Entry]) -> dict[str, str]:
        async with self._turn:
            accepted, rejected = accept(self._state, batch)
            if accepted:
                await self._publish(accepted)
        return rejected


async def _beside(inbox: Inbox, work: Coroutine[Any, Any, None]) -> None:
    """Do something for as long as the stream lives. Its error ends the stream as one of reading
    does: what has come is applied whole."""
    try:
        await work
    except (ControlError, WireError, grpc.aio.AioRpcError) as exc:
        await inbox.end(exc)


def _is_last(update: Update) -> bool:
    """True for a response after which nothing is missing of what there was when it was made."""
    return update.asked is None and update.word is not Word.MORE


def explain(exc: Exception) -> str:
    if isinstance(exc, grpc.aio.AioRpcError):
        return f"{exc.code().name}: {exc.details()}"
    return str(exc) or type(exc).__name__


def _termination(exc: Exception, *, connected: bool) -> str:
    """Reason in the words of Istio's metric."""
    if not connected:
        return "ConnectionError"
    return "Complete" if isinstance(exc, XdsEnded) else "Error"
