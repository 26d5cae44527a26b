"""Delta xDS stream: keeps the node's state current and passes every change on. Never decides.

While the control plane is away the last good state stays. A new stream tells the server which
versions are held, and only differences come back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import grpc
import grpc.aio

from control.kit.backoff import Backoff
from control.kit.errors import ControlError, WireError
from control.kit.log import event
from control.kit.memory import release
from control.wire.channel import open_channel
from control.wire.delta import DeltaClient, NodeInfo, Update
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, DELTA_METHOD
from ztunnel.access import CONNECT_TIMEOUT_S, call_metadata, roots_pem
from ztunnel.config import Addresses, ZtunnelConfig
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.supervisor.demand import Demand, Refuse
from ztunnel.supervisor.inbox import Inbox
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

_PUT = {ADDRESS_TYPE: Op.ADDRESS, AUTHORIZATION_TYPE: Op.POLICY}
_REMOVE = {ADDRESS_TYPE: Op.REMOVE_ADDRESS, AUTHORIZATION_TYPE: Op.REMOVE_POLICY}

TYPES = ADDRESS_TYPE, AUTHORIZATION_TYPE

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
        on_demand = (ADDRESS_TYPE,) if config.addresses is Addresses.ON_DEMAND else ()
        self._delta = DeltaClient(node_info(config), TYPES, on_demand)
        self._turn = asyncio.Lock()  # one batch after the other
        self.demand: Demand | None = None  # None: all addresses come unasked
        if on_demand:
            self.demand = Demand(self._delta, state, self._pass_on, refuse)
        self._settling = Settling(TYPES)
        # By type and nonce, of responses that are read and not applied. Types may share a nonce.
        self._numbers: dict[tuple[str, str], int] = {}
        self._hurried = asyncio.Event()
        self._sending = asyncio.Lock()
        self.inbox = Inbox()
        self.status = XdsStatus()

    async def run(self) -> None:
        """Connect, follow the stream, and start again after a growing pause, until cancelled."""
        backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        if self.demand is not None:
            self.demand.lost()
            await self._pass_on([Entry(Op.ON_DEMAND)])
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
        if self.demand is not None:
            self.demand.lost()
        status.error = explain(exc)
        event(log, logging.WARNING, "xds.disconnected", reason=reason, error=status.error)

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
            opening = self._delta.opening()
            if self.demand is not None:
                self.demand.opened()
            for request in opening:
                await self._send(call, request.SerializeToString(deterministic=True))
            self.status.connected = True
            self.status.error = ""
            event(log, logging.INFO, "xds.connected", address=config.control)
            self._on_connected()
            inbox = self.inbox = Inbox()  # the server repeats whatever an earlier stream left there
            send = functools.partial(self._send, call)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(call, inbox), name="xds.read")
                if self.demand is not None:
                    tasks.create_task(self.demand.send(send), name="xds.ask")
                while True:
                    await self._wait(inbox, send)
        finally:
            await channel.close(None)

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

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes], inbox: Inbox) -> None:
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

    async def _send(self, call: grpc.aio.StreamStreamCall[bytes, bytes], message: bytes) -> None:
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
        is_asked = self.demand is not None and update.type_url == ADDRESS_TYPE
        if self.demand is not None and is_asked:
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
        if self.demand is not None and is_asked:
            await self.demand.answered(update)
        return rejected

    async def _pass_on(self, batch: list[Entry]) -> dict[str, str]:
        async with self._turn:
            accepted, rejected = accept(self._state, batch)
            if accepted:
                await self._publish(accepted)
        return rejected


def explain(exc: Exception) -> str:
    if isinstance(exc, grpc.aio.AioRpcError):
        return f"{exc.code().name}: {exc.details()}"
    return str(exc) or type(exc).__name__


def _termination(exc: Exception, *, connected: bool) -> str:
    """Reason in the words of Istio's metric."""
    if not connected:
        return "ConnectionError"
    return "Complete" if isinstance(exc, XdsEnded) else "Error"
