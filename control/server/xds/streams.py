"""Delta xDS over gRPC: moves bytes between streams and their sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from control.kit.clock import Clock
from control.kit.errors import WireError
from control.kit.log import event
from control.kit.slices import in_slices, made_in_slices
from control.model.route import WaypointKey
from control.server.callers.budget import (
    BUILDING,
    NAMES,
    SENDING,
    STREAMS,
    Paces,
    Shares,
)
from control.server.callers.caller_lines import CallerLines
from control.server.callers.door import AdmittedCall, Context, Door, client_gone
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller
from control.server.callers.turns import Turns
from control.server.metrics import Metrics, short_type
from control.server.xds.client import (
    NACK_CHARS_MAX,
    NODE_ID_CHARS_MAX,
    Client,
    Nack,
    claimed_node,
)
from control.server.xds.follower import Behind
from control.server.xds.names import BadRequest
from control.server.xds.node_view import NodeView
from control.server.xds.publish import Publisher
from control.server.xds.requests import WORTH_BYTES, ReadRequest, Requests
from control.server.xds.response import DeltaResponse
from control.server.xds.session import Acknowledged, DeltaSession
from control.server.xds.shelf import HeldVersions
from control.server.xds.view import View
from control.server.xds.waypoint_view import WaypointView
from control.wire import discovery_pb2 as pb
from control.wire.delta import SIZE_HEADER
from control.wire.types import ADDRESS_TYPE, POD_TYPE

log = logging.getLogger("xds")

FIRST_REQUEST_S = 10.0  # a stream that says nothing must not stay
REMEMBER_S = 15.0  # what nodes bring that come back; longer than they are apart
# Until a client has taken a response: a minute, and longer for what takes longer.
WRITE_S, WRITE_BYTES_PER_S = 60.0, 1024 * 1024
SMALL_BYTES = 64 * 1024  # a response below needs no share of SENDING


class _StreamEnded(Exception):
    """One side closed the stream: leaves its task group."""


class _Exhausted(WireError):
    """The client uses up all it may have of something."""

    def __init__(self, why: CallRefusal) -> None:
        super().__init__("try again")
        self.why = why


class DeltaService:
    """`received`: the pace of what callers send, which what they are sent counts for as well."""

    def __init__(
        self,
        publisher: Publisher,
        door: Door,
        received: Paces,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._door = door
        self._pace = received
        self._metrics = metrics
        self._clock = clock
        self._lines = CallerLines(log, clock)
        self._building = Turns(BUILDING)
        self.sending = Turns(SENDING)
        self.streams = Shares(STREAMS)
        self.names = Shares(NAMES)
        self.clients: set[Client] = set()
        self.nacks: dict[WaypointKey, Nack] = {}  # the last one of each waypoint
        self._closing = False
        self._requests = Requests()
        self._reading = asyncio.Lock()  # one large list at a time: most are the same
        self._forgetting: asyncio.TimerHandle | None = None

    def has_agent(self, node: str) -> bool:
        """True while this node's agent has a stream here: whoever asks for pods reports them."""
        return any(
            POD_TYPE in each.session.types
            for each in self.clients
            if each.caller.waypoint is None and each.caller.node == node
        )

    def close(self) -> None:
        """End every stream: nodes keep what they have and look for another control plane."""
        self._closing = True
        for client in self.clients:
            client.wake.set()

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One DeltaAggregatedResources call, from the first request to its end."""
        async with self._door.admitted(context, "xds") as call:
            if not self.streams.take(call.tenant):
                await self._door.exhausted(context, call, "xds", CallRefusal.STREAMS_MAX)
            try:
                await self._converse(requests, call, context)
            finally:
                self.streams.give(call.tenant)

    async def _converse(
        self, requests: AsyncIterator[bytes], call: AdmittedCall, context: Context
    ) -> None:
        try:
            client = await self._greet(requests, call, context)
            if client is not None:
                await self._serve(client, requests, context)
            return
        except TimeoutError:
            refused = grpc.StatusCode.DEADLINE_EXCEEDED, "no request came", CallRefusal.SILENT
        except _Exhausted as exc:
            refused = grpc.StatusCode.RESOURCE_EXHAUSTED, str(exc), exc.why
        except BadRequest as exc:
            refused = grpc.StatusCode.INVALID_ARGUMENT, str(exc), exc.why
        except Behind as exc:
            refused = grpc.StatusCode.ABORTED, str(exc), exc.why
        except WireError as exc:
            refused = grpc.StatusCode.INVALID_ARGUMENT, str(exc), CallRefusal.WIRE
        await self._door.refuse(context, call, "xds", *refused)

    async def _greet(
        self, requests: AsyncIterator[bytes], call: AdmittedCall, context: Context
    ) -> Client | None:
        """Take the first request; None when the stream ended before it. Nothing of the request is
        kept but what the session made of it: it may have 16 MiB."""
        data = await _first(requests, call)
        if data is None:
            return None
        first = await self._read_once(data)
        del data
        call.taken()
        claimed = claimed_node(first.message.node)
        if claimed not in ("", call.caller.node):
            code = grpc.StatusCode.PERMISSION_DENIED
            await self._door.refuse(
                context,
                call,
                "xds",
                code,
                "the token is of another node",
                CallRefusal.OTHER_NODE,
                claimed=claimed,
            )
        view = self._view(call.caller)
        await self._ready(first, view)
        client = self._enter(first.message, call, view)
        try:
            self._receive(client, first)
        except WireError:
            self._leave(client)
            raise
        return client

    async def _serve(
        self, client: Client, requests: AsyncIterator[bytes], context: Context
    ) -> None:
        stop = self._publisher.listen(client.hear, client.caller.waypoint)
        try:
            await context.send_initial_metadata(self._about(client))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(client, requests), name="xds.read")
                tasks.create_task(self._write(client, context), name="xds.write")
        except grpc.aio.InternalError:
            await client_gone()
        except BaseExceptionGroup as group:
            # Not `except*`: before Python 3.11.4 what that raises is wrapped in a group once more,
            # and nobody would refuse the stream.
            bugs = group.split((_StreamEnded, WireError, grpc.aio.InternalError))[1]
            if bugs is not None:
                raise bugs from None
            if group.subgroup(grpc.aio.InternalError) is not None:
                await client_gone()
                return
            wrong = [each for each in group.exceptions if isinstance(each, WireError)]
            if wrong:
                raise wrong[0] from None
        finally:
            stop()
            self._leave(client)

    def _about(self, client: Client) -> tuple[tuple[str, str], ...]:
        """The size of the mesh, by which a node decides how it asks; a waypoint sees none of it."""
        if client.caller.waypoint is not None:
            return ()
        return ((SIZE_HEADER, str(len(self._publisher.cache.entries(ADDRESS_TYPE)))),)

    async def _read(self, client: Client, requests: AsyncIterator[bytes]) -> None:
        while (data := await anext(requests, None)) is not None:
            request = await self._read_once(data)
            await self._ready(request, client.session.view)
            self._receive(client, request)
            del data, request  # they may be large, and the next one may take its time
            client.taken()
        # gRPC takes no end of a call beside a message. If the client is gone, it ends both.
        await client.idle.wait()
        raise _StreamEnded

    async def _ready(self, request: ReadRequest, view: View) -> None:
        """Wait until the view can be asked all that this asks, and shows no half of a change."""
        message = request.message
        by_name = message.resource_names_subscribe or message.resource_names_unsubscribe
        if by_name and message.type_url == ADDRESS_TYPE and ADDRESS_TYPE in view.types:
            await self._publisher.indexed()
        shelf = view.shelf(message.type_url)
        if shelf is not None and isinstance(request.held, HeldVersions):
            async with self._reading:
                await self._publisher.shown.wait()
                await in_slices(shelf.placing(request.held), self._clock)
        await self._publisher.shown.wait()

    async def _read_once(self, data: bytes) -> ReadRequest:
        if len(data) < WORTH_BYTES:
            return self._requests.read(data)
        # Nodes come back together, and then no more.
        if self._forgetting is not None:
            self._forgetting.cancel()
        loop = asyncio.get_running_loop()
        self._forgetting = loop.call_later(REMEMBER_S, self._requests.forget)
        async with self._reading:
            return await made_in_slices(self._requests.steps(data), self._clock)

    def _receive(self, client: Client, request: ReadRequest) -> None:
        noted = client.session.receive(request.message, request.held)
        self._account(client)
        client.wake.set()
        if noted is None:
            return
        self._note(client, noted)

    def _note(self, client: Client, noted: Acknowledged) -> None:
        kind = short_type(noted.type_url)
        if not noted.error:
            event(log, logging.DEBUG, "xds.acked", **client.words, type=kind, nonce=noted.nonce)
            return
        self._metrics.nacks.labels(kind).inc()
        error = noted.error[:NACK_CHARS_MAX]
        self._keep(client, Nack(client.node_id, noted.type_url, self._clock.now(), error))
        self._lines.line(
            client.tenant,
            logging.WARNING,
            "xds.nacked",
            **client.words,
            type=kind,
            nonce=noted.nonce,
            error=error,
        )

    def _keep(self, client: Client, nack: Nack) -> None:
        """For the page of waypoints, which has one of each that there is."""
        waypoint, racks = client.caller.waypoint, self._publisher.racks
        if waypoint is not None:
            if waypoint not in self.nacks:
                self.nacks = {key: each for key, each in self.nacks.items() if key in racks}
            self.nacks[waypoint] = nack

    def _account(self, client: Client) -> None:
        """Have the share of NAMES that the session needs by now."""
        more = client.session.names_bytes - client.names_bytes
        if more < 0:
            self.names.give(client.tenant, -more)
        elif not self.names.take(client.tenant, more):
            raise _Exhausted(CallRefusal.NAMES_MAX)
        client.names_bytes += more

    async def _write(self, client: Client, context: Context) -> None:
        while True:
            await client.wake.wait()
            client.wake.clear()
            if self._closing:
                raise _StreamEnded
            while await self._push(client, context):
                pass

    async def _push(self, client: Client, context: Context) -> bool:
        """Build and send the next response, if there is one, when it is its tenant's turn."""
        tenant = client.tenant
        wait_s = self._pace.wait_s(tenant, self._clock.monotonic_s())
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        about_bytes = client.session.estimate_bytes()
        if about_bytes < SMALL_BYTES:
            return await self._build_and_send(client, context, is_cheap=client.session.is_cheap)
        async with self.sending.turn(tenant, about_bytes):
            return await self._build_and_send(client, context)

    async def _build_and_send(
        self, client: Client, context: Context, *, is_cheap: bool = False
    ) -> bool:
        if is_cheap:
            await self._publisher.shown.wait()
            response = client.session.take()
        else:
            async with self._building.turn(client.tenant):
                await self._publisher.shown.wait()
                response = client.session.take()
                if response is not None:
                    await in_slices(response.steps(), self._clock)
                # The turn goes on in the loop's next round: between two responses others are heard.
                await asyncio.sleep(0)
        if response is None:
            return False
        self._account(client)
        self._pace.spend(client.tenant, response.size_bytes, self._clock.monotonic_s())
        await self._send(client, response, context)
        return True

    async def _send(self, client: Client, response: DeltaResponse, context: Context) -> None:
        started_s = self._clock.monotonic_s()
        client.idle.clear()
        try:
            async with asyncio.timeout(WRITE_S + response.size_bytes / WRITE_BYTES_PER_S):
                await context.write(response.data)
        except TimeoutError as exc:
            raise _Exhausted(CallRefusal.SLOW_READER) from exc
        finally:
            client.idle.set()
        kind = short_type(response.type_url)
        self._metrics.push_s.observe(self._clock.monotonic_s() - started_s)
        self._metrics.pushes.labels(kind).inc()
        self._metrics.push_bytes.labels(kind).inc(response.size_bytes)
        event(
            log,
            logging.DEBUG,
            "xds.pushed",
            **client.words,
            type=kind,
            nonce=response.nonce,
            added=response.added,
            removed=response.removed,
            bytes=response.size_bytes,
        )

    def _view(self, caller: Caller) -> View:
        """Decided by the token: a node is shown the mesh, a waypoint its own and nothing else."""
        if caller.waypoint is None:
            return NodeView(self._publisher.cache, caller.node)
        return WaypointView(self._publisher.racks.rack(caller.waypoint))

    def _enter(self, first: pb.DeltaDiscoveryRequest, call: AdmittedCall, view: View) -> Client:
        session = DeltaSession(view)
        now, node_id = self._clock.now(), first.node.id[:NODE_ID_CHARS_MAX]
        client = Client(node_id, call.caller, call.address, now, session, call.taken)
        self.clients.add(client)
        self._metrics.connected.labels(client.kind).inc()
        self._lines.line(client.tenant, logging.INFO, "xds.connected", **client.words)
        return client

    def _leave(self, client: Client) -> None:
        self.clients.discard(client)
        self.names.give(client.tenant, client.names_bytes)
        self._metrics.connected.labels(client.kind).dec()
        self._lines.line(client.tenant, logging.INFO, "xds.disconnected", **client.words)


async def _first(requests: AsyncIterator[bytes], call: AdmittedCall) -> bytes | None:
    """The first message. One that is large has its own time, and a turn to wait for."""
    loop = asyncio.get_running_loop()
    looking: asyncio.TimerHandle

    def look() -> None:
        nonlocal looking
        if call.is_sending():
            deadline.reschedule(loop.time() + FIRST_REQUEST_S)
        looking = loop.call_later(FIRST_REQUEST_S / 2, look)

    async with asyncio.timeout(FIRST_REQUEST_S) as deadline:
        look()
        try:
            return await anext(requests, None)
        finally:
            looking.cancel()
