"""Delta xDS over gRPC: moves bytes between streams and their sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime

import grpc
from google.protobuf.message import DecodeError

from control.kit.clock import Clock
from control.kit.errors import WireError
from control.kit.log import event
from control.server.callers.door import Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.metrics import Metrics, short_type
from control.server.xds.cache import Change
from control.server.xds.publish import Publisher
from control.server.xds.session import DeltaResponse, DeltaSession, TooManyNames
from control.wire import discovery_pb2 as pb

log = logging.getLogger("xds")

FIRST_REQUEST_S = 10.0  # a stream that says nothing must not stay
STREAMS_MAX = 4096  # two per node (agent, ztunnel) of a cluster far beyond what one replica serves


@dataclass(slots=True, eq=False)
class Client:
    """One open stream, for the admin page."""

    node_id: str
    node: str
    peer: str
    since: datetime
    session: DeltaSession
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class _StreamEnded(Exception):
    """One side closed the stream: leaves its task group."""


class DeltaService:
    def __init__(
        self,
        publisher: Publisher,
        door: Door,
        metrics: Metrics,
        clock: Clock,
        streams_max: int = STREAMS_MAX,
    ) -> None:
        self._streams_max = streams_max
        self._publisher = publisher
        self._door = door
        self._metrics = metrics
        self._clock = clock
        self.clients: set[Client] = set()
        self._closing = False

    def close(self) -> None:
        """End every stream: nodes keep what they have and look for another control plane."""
        self._closing = True
        for client in self.clients:
            client.wake.set()

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One DeltaAggregatedResources call, from the first request to its end."""
        caller = await self._door.admit(context, "xds")
        if len(self.clients) >= self._streams_max:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await self._door.refuse(
                context, "xds", code, "too many streams", CallRefusal.STREAMS_MAX
            )
        client: Client | None = None
        stop = None
        try:
            async with asyncio.timeout(FIRST_REQUEST_S):
                first = _parse(await anext(requests))
            if _claimed_node(first.node) not in ("", caller.node):
                code = grpc.StatusCode.PERMISSION_DENIED
                await self._door.refuse(
                    context,
                    "xds",
                    code,
                    "the token is of another node",
                    CallRefusal.OTHER_NODE,
                    node=caller.node,
                    claimed=_claimed_node(first.node),
                )
            client = self._enter(first, caller.node, context)
            stop = self._publisher.listen(_waker(client))
            await self._serve(client, first, requests, context)
        except StopAsyncIteration:
            return
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            await self._door.refuse(context, "xds", code, "no request came", CallRefusal.SILENT)
        except WireError as exc:
            code = grpc.StatusCode.INVALID_ARGUMENT
            why = CallRefusal.TOO_MANY_NAMES if isinstance(exc, TooManyNames) else CallRefusal.WIRE
            await self._door.refuse(context, "xds", code, str(exc), why)
        finally:
            if stop is not None:
                stop()
            if client is not None:
                self._leave(client)

    async def _serve(
        self,
        client: Client,
        first: pb.DeltaDiscoveryRequest,
        requests: AsyncIterator[bytes],
        context: Context,
    ) -> None:
        self._receive(client, first)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(client, requests), name="xds.read")
                tasks.create_task(self._write(client, context), name="xds.write")
        except* _StreamEnded:
            pass
        except* WireError as group:
            raise group.exceptions[0] from None

    async def _read(self, client: Client, requests: AsyncIterator[bytes]) -> None:
        async for data in requests:
            self._receive(client, _parse(data))
        raise _StreamEnded

    def _receive(self, client: Client, request: pb.DeltaDiscoveryRequest) -> None:
        noted = client.session.receive(request)
        client.wake.set()
        if noted is None:
            return
        kind = short_type(noted.type_url)
        if noted.error:
            self._metrics.nacks.labels(kind).inc()
            event(
                log,
                logging.WARNING,
                "xds.nacked",
                node=client.node_id,
                type=kind,
                nonce=noted.nonce,
                error=noted.error,
            )
        else:
            event(
                log, logging.DEBUG, "xds.acked", node=client.node_id, type=kind, nonce=noted.nonce
            )

    async def _write(self, client: Client, context: Context) -> None:
        while True:
            await client.wake.wait()
            client.wake.clear()
            if self._closing:
                raise _StreamEnded
            while (response := client.session.take()) is not None:
                await self._send(client, response, context)

    async def _send(self, client: Client, response: DeltaResponse, context: Context) -> None:
        started_s = self._clock.monotonic_s()
        await context.write(response.data)
        kind = short_type(response.type_url)
        self._metrics.push_s.observe(self._clock.monotonic_s() - started_s)
        self._metrics.pushes.labels(kind).inc()
        self._metrics.push_bytes.labels(kind).inc(len(response.data))
        event(
            log,
            logging.DEBUG,
            "xds.pushed",
            node=client.node_id,
            type=kind,
            nonce=response.nonce,
            added=response.added,
            removed=response.removed,
            bytes=len(response.data),
        )

    def _enter(self, first: pb.DeltaDiscoveryRequest, node: str, context: Context) -> Client:
        session = DeltaSession(self._publisher.cache, node)
        client = Client(first.node.id, node, context.peer(), self._clock.now(), session)
        self.clients.add(client)
        self._metrics.connected.set(len(self.clients))
        event(log, logging.INFO, "xds.connected", node=client.node_id, peer=client.peer)
        return client

    def _leave(self, client: Client) -> None:
        self.clients.discard(client)
        self._metrics.connected.set(len(self.clients))
        event(log, logging.INFO, "xds.disconnected", node=client.node_id, peer=client.peer)


def _waker(client: Client) -> Callable[[Change], None]:
    def wake(change: Change) -> None:
        client.session.changed(change)
        client.wake.set()

    return wake


def _parse(data: bytes) -> pb.DeltaDiscoveryRequest:
    try:
        return pb.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as exc:
        raise WireError("not a delta discovery request") from exc


def _claimed_node(node: pb.Node) -> str:
    value = node.metadata.fields.get("NODE_NAME")
    return value.string_value if value is not None else ""
