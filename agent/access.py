"""The connection to the control plane: gRPC over TLS with a token; does not read the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from agent.intents import DeltaStream, NoControl
from control.wire.channel import bearer, holds_roots, open_channel, read_token
from control.wire.types import DELTA_METHOD, REPORT_METHOD

REPORT_TIMEOUT_S = 5.0


class Access:
    """Way to the control plane (C7). Root and token are read anew for each connection."""

    def __init__(self, address: str, root: Path, name: str, token: Path | None) -> None:
        self.address = address
        self._root = root
        self._name = name
        self._token = token
        self._live: grpc.aio.Channel | None = None  # the open stream's; reports use it too

    def _channel(self, address: str = "") -> grpc.aio.Channel:
        try:
            root = self._root.read_bytes()
        except OSError as exc:
            raise NoControl(f"read {self._root}: {exc.strerror}") from exc
        if not holds_roots(root):
            raise NoControl(f"{self._root}: no certificate in PEM")
        return open_channel(address or self.address, root, self._name)

    def _metadata(self) -> grpc.aio.Metadata:
        if self._token is None:
            return grpc.aio.Metadata()
        return grpc.aio.Metadata(bearer(read_token(self._token)))

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[DeltaStream]:
        async with self._channel() as channel:
            call = channel.stream_stream(DELTA_METHOD, bytes, bytes)(
                None, metadata=self._metadata()
            )
            self._live = channel
            try:
                yield _GrpcStream(call)
            except grpc.aio.AioRpcError as exc:
                raise _explained(exc) from exc
            finally:
                self._live = None
                call.cancel()

    async def report(self, request: bytes) -> bytes:
        if self._live is None:
            raise NoControl("not connected")
        return await self._report(self._live, request)

    async def report_to(self, address: str, request: bytes) -> bytes:
        """Report to one replica of the control plane."""
        async with self._channel(address) as channel:
            return await self._report(channel, request)

    async def _report(self, channel: grpc.aio.Channel, request: bytes) -> bytes:
        call = channel.unary_unary(REPORT_METHOD, bytes, bytes)
        try:
            return bytes(await call(request, metadata=self._metadata(), timeout=REPORT_TIMEOUT_S))
        except grpc.aio.AioRpcError as exc:
            raise _explained(exc) from exc
        except grpc.aio.UsageError as exc:
            raise NoControl("the connection was closed") from exc
        except asyncio.CancelledError as exc:
            # gRPC also raises this when the stream has ended and closed the channel under us; it
            # passes only if our own task is cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise NoControl("the connection was closed") from exc


class _GrpcStream:
    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call

    async def write(self, data: bytes) -> None:
        await self._call.write(data)

    async def read(self) -> bytes | None:
        received = await self._call.read()
        return received if isinstance(received, bytes) else None


def _explained(error: grpc.aio.AioRpcError) -> NoControl:
    return NoControl(f"{error.code().name.lower()}: {error.details()}")
