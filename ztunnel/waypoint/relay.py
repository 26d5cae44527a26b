"""Envoy's way to the control plane: its one stream for resources, passed on over TLS.

Messages pass as bytes, in both directions, one at a time: a slow side slows the other. A stream
that ends at one side ends at the other; Envoy asks again by itself, with its own pauses, and says
what it holds. The last good resources stay in Envoy meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import grpc.aio

from control.kit.errors import ControlError
from control.kit.log import event
from control.wire.channel import open_channel
from control.wire.types import DELTA_METHOD
from ztunnel.access import CONNECT_TIMEOUT_S, call_metadata, roots_pem
from ztunnel.supervisor.outage import Outage
from ztunnel.waypoint.config import WaypointConfig

log = logging.getLogger("xds")

SERVICE, METHOD = DELTA_METHOD[1:].split("/")
STREAMS_MAX = 4  # Envoy has one, and for a moment the one before
ERROR_CHARS_MAX = 300

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Streams = Callable[[AsyncIterator[bytes], Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a stream, as Envoy is told: `reason` is of few values."""

    reason: str
    code: grpc.StatusCode
    error: str


@dataclass(slots=True)
class RelayStatus:
    """For the pages."""

    connected: int = 0  # streams now
    error: str = ""
    terminations: Counter[str] = field(default_factory=Counter)
    messages: int = 0  # from the control plane
    message_bytes: int = 0


class AdsRelay:
    def __init__(
        self, config: WaypointConfig, on_connected: Callable[[], None] = lambda: None
    ) -> None:
        """`on_connected`: the control plane is there."""
        self._config = config
        self._on_connected = on_connected
        self._outage = Outage()
        self._streams = 0
        self.status = RelayStatus()

    async def deltas(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One stream of Envoy's; it always ends with an error, as neither side has a reason to."""
        if self._streams >= STREAMS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        self._streams += 1
        try:
            ending = await self._relay(aiter(requests), context)
        finally:
            self._streams -= 1
        self._told(ending)
        await context.abort(ending.code, ending.error)

    async def _relay(self, requests: AsyncIterator[bytes], context: Context) -> Ending:
        config = self._config
        try:
            metadata = call_metadata(config.token, config.cluster_id)
            pem = roots_pem(config.control_root)
        except ControlError as exc:
            return Ending(exc.reason, grpc.StatusCode.UNAVAILABLE, str(exc))
        async with open_channel(config.control, pem, config.control_name) as channel:
            call = channel.stream_stream(DELTA_METHOD, bytes, bytes)(None, metadata=metadata)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await call.wait_for_connection()
                return await self._pass_on(requests, context, call)
            except TimeoutError:
                return Ending("connect", grpc.StatusCode.UNAVAILABLE, "no answer in time")
            except grpc.aio.AioRpcError as exc:
                return Ending("connect", exc.code(), exc.details() or "")
            finally:
                call.cancel()

    async def _pass_on(
        self, requests: AsyncIterator[bytes], context: Context, call: _Call
    ) -> Ending:
        """Both directions, until one has ended."""
        self._connected()
        try:
            async with asyncio.TaskGroup() as tasks:
                up = tasks.create_task(_up(requests, call), name="relay.up")
                down = tasks.create_task(self._down(call, context), name="relay.down")
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
                ended = down.result() if down.done() else None
                up.cancel()
                down.cancel()
        finally:
            self.status.connected -= 1
        return ended or Ending("envoy", grpc.StatusCode.CANCELLED, "ended by Envoy")

    async def _down(self, call: _Call, context: Context) -> Ending:
        try:
            while isinstance(message := await call.read(), bytes):
                self.status.messages += 1
                self.status.message_bytes += len(message)
                await context.write(message)
        except grpc.aio.AioRpcError as exc:
            return Ending("stream", exc.code(), exc.details() or "")
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return Ending("stream", grpc.StatusCode.UNAVAILABLE, "the control plane ended it")
        return Ending("stream", code, await call.details() or "")

    def _connected(self) -> None:
        self._outage.connected()
        self.status.connected += 1
        self.status.error = ""
        event(log, logging.INFO, "xds.connected", address=self._config.control)
        self._on_connected()

    def _told(self, ending: Ending) -> None:
        status = self.status
        status.terminations[ending.reason] += 1
        status.error = f"{ending.code.name}: {ending.error}"[:ERROR_CHARS_MAX]
        if ending.reason == "envoy":
            return
        kind = f"{ending.reason} {ending.code.name}"
        tries = self._outage.broken(kind, asyncio.get_running_loop().time())
        if tries is not None:
            told = {"reason": ending.reason, "error": status.error, "tries": tries}
            event(log, logging.WARNING, "xds.disconnected", **told)


async def _up(requests: AsyncIterator[bytes], call: _Call) -> None:
    """Envoy's requests. That the call has ended is what the other direction sees, and says."""
    try:
        async for message in requests:
            await call.write(message)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await asyncio.Event().wait()
