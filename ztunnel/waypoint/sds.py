"""Serves Envoy its certificate and the roots, over its private socket, and again when they change.

Keys go from memory to memory: from the one that asked for the certificate to Envoy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import grpc.aio

from control.kit.errors import WireError
from control.kit.log import event
from control.model.identity import SpiffeId
from ztunnel.identity.csr import Issued
from ztunnel.waypoint.secrets import Secret, SecretStream, secrets_of

log = logging.getLogger("sds")

SERVICE, METHOD = "envoy.service.secret.v3.SecretDiscoveryService", "DeltaSecrets"
STREAMS_MAX = 256  # Envoy has one for each use of a secret

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class Sds:
    """The holder of the key (`certs.KeyHolders`), and the service."""

    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}
        self.issued: Issued | None = None
        self.first = asyncio.Event()  # a certificate is there
        self.refused = 0  # by Envoy
        self.streams = 0
        self._changed = asyncio.Event()

    def publish_certificate(self, issued: Issued) -> None:
        self.issued = issued
        self.secrets = secrets_of(issued)
        self.first.set()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def publish_failure(self, identity: SpiffeId, reason: str) -> None:
        """Envoy keeps the certificate that it has: whoever meets it judges its dates."""

    def publish_forgotten(self, identity: SpiffeId) -> None:
        """The one identity is held as long as the process lives."""

    async def deltas(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One stream."""
        if self.streams >= STREAMS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        self.streams += 1
        try:
            fault = await self._serve(aiter(requests), context)
        finally:
            self.streams -= 1
        if fault:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault)

    async def _serve(self, requests: AsyncIterator[bytes], context: Context) -> str:
        """Serve until Envoy ends the stream; its fault, if that is why it ends."""
        stream = SecretStream()
        news: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        fault = ""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(requests, news), name="sds.read")
            while not fault:
                changed = self._changed
                answer = stream.answer(self.secrets)
                if answer is not None:
                    await context.write(answer)
                data = await _either(news, changed)
                if data is None:
                    break
                fault = self._heard(stream, data)
            reading.cancel()
        return fault

    def _heard(self, stream: SecretStream, data: bytes) -> str:
        try:
            refused = stream.receive(data) if data else ""
        except WireError as exc:
            return str(exc)
        if refused:
            self.refused += 1
            event(log, logging.ERROR, "secret.refused", error=refused)
        return ""


async def _read(requests: AsyncIterator[bytes], news: asyncio.Queue[bytes | None]) -> None:
    async for data in requests:
        await news.put(data)
    await news.put(None)


async def _either(news: asyncio.Queue[bytes | None], changed: asyncio.Event) -> bytes | None:
    """The next request, None at the end of the stream, or b"" when the secrets have changed."""
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(news.get(), name="sds.request")
        told = tasks.create_task(changed.wait(), name="sds.change")
        await asyncio.wait((asked, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not asked.done():
            asked.cancel()
            return b""
        return asked.result()
