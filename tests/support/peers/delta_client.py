"""A delta xDS client over real gRPC and TLS, for tests: `DeltaClient` plus a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc

from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, Update
from control.wire.types import DELTA_METHOD, MESSAGE_BYTES_MAX

DEADLINE_S = 10.0


def secure_channel(port: int, root_pem: bytes, name: str = "localhost") -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        f"127.0.0.1:{port}",
        grpc.ssl_channel_credentials(root_pem),
        options=[
            ("grpc.ssl_target_name_override", name),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ],
    )


class Stream:
    """One open stream. `resources` is what an obedient client holds: type → name → bytes."""

    def __init__(self, call: Any, client: DeltaClient) -> None:
        self._call = call
        self.client = client
        self.resources: dict[str, dict[str, bytes]] = {}
        self.updates: list[Update] = []
        self.raw: list[bytes] = []

    async def send(self, request: pb.DeltaDiscoveryRequest | None) -> None:
        assert request is not None
        await self._call.write(request.SerializeToString())

    async def next(self, rejected: Mapping[str, str] | None = None) -> Update:
        """The next response, applied and acknowledged (or rejected)."""
        update = await self.receive()
        await self.send(self.client.acknowledge(update.type_url, update.nonce, rejected))
        return update

    async def receive(self) -> Update:
        async with asyncio.timeout(DEADLINE_S):
            try:
                data = await self._call.read()
            except grpc.aio.AioRpcError as exc:
                raise EOFError(exc.code()) from exc
        if data is grpc.aio.EOF:
            raise EOFError(await self._call.code())
        self.raw.append(data)
        update = self.client.receive(data)
        held = self.resources.setdefault(update.type_url, {})
        for name in update.removed:
            held.pop(name, None)
        held.update((each.name, each.resource) for each in update.added)
        self.updates.append(update)
        return update

    async def until(self, holds: Callable[[Stream], bool]) -> None:
        """Follow the stream until the condition holds."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds(self):
                await self.next()


@asynccontextmanager
async def open_stream(
    channel: grpc.aio.Channel, client: DeltaClient, token: str
) -> AsyncIterator[Stream]:
    method = channel.stream_stream(DELTA_METHOD)
    call: Any = method(metadata=(("authorization", f"Bearer {token}"),))
    stream = Stream(call, client)
    try:
        try:
            for request in client.opening():
                await stream.send(request)
        except grpc.aio.AioRpcError:
            pass  # refused already: the first read says why
        yield stream
    finally:
        call.cancel()
