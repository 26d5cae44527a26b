"""Simulated nodes: real streams over TLS that acknowledge everything and keep nothing.

A large response is not parsed, only its nonce is found, so that hundreds of nodes cost the machine
less than the control plane does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import grpc
import grpc.aio

from control.wire import discovery_pb2 as pb
from control.wire import node_pb2
from control.wire.sums import (
    SUMS_KEY,
    WORTH_ENTRIES,
    entries_in,
    question_from_text,
    sums_of,
    sums_to_text,
)
from control.wire.types import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    DELTA_METHOD,
    MESSAGE_BYTES_MAX,
    NAMESPACE_TYPE,
    POD_TYPE,
    REPORT_METHOD,
)
from tests.support.processes.control import Control

PARSED_BYTES_MAX = 262_144  # 200 workloads and more
DEADLINE_S = 240.0
NONCE_TAG = 0x2A
ZTUNNEL, AGENT = (ADDRESS_TYPE, AUTHORIZATION_TYPE), (POD_TYPE, NAMESPACE_TYPE)
Versions = Mapping[str, Mapping[str, str]]  # by type


class LightNodes:
    """`bytes` by node and `heard` (name → times) grow; `broken` counts streams that ended."""

    def __init__(
        self, control: Control, versions: Versions | None = None, *, sums: bool = True
    ) -> None:
        self.bytes: dict[str, int] = {}
        self.heard: dict[str, list[float]] = {}
        self.broken = 0
        self.versions: dict[str, dict[str, str]] = {}  # if somebody parses everything
        self._known = versions or {}
        # Nodes that come back open with sums, as ours do, or with lists.
        self._sums = {url: _sums(each) for url, each in self._known.items() if sums}
        self._entries: dict[str, list[bytes]] = {}
        self._control = control
        self._news = asyncio.Event()
        self._tokens: dict[str, str] = {}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def forget(self) -> None:
        self.heard.clear()

    async def ztunnel(self, node: str, *, parses: bool = False) -> None:
        await self._follow(node, ZTUNNEL, parses)

    async def agent(self, node: str) -> None:
        await self._follow(node, AGENT, False)

    async def report(self, node: str, uids: Sequence[str]) -> None:
        async with self._channel() as channel:
            request = node_pb2.ReportRequest(node=node, captured_uids=uids)
            call: Any = channel.unary_unary(REPORT_METHOD)
            await call(request.SerializeToString(), metadata=self._metadata(node))

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            f"127.0.0.1:{self._control.port}",
            grpc.ssl_channel_credentials(self._control.root_pem),
            options=[
                ("grpc.ssl_target_name_override", "localhost"),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    def _metadata(self, node: str) -> tuple[tuple[str, str], ...]:
        if node not in self._tokens:
            self._tokens[node] = self._control.token(node)
        return (("authorization", f"Bearer {self._tokens[node]}"),)

    async def _follow(self, node: str, types: Sequence[str], parses: bool) -> None:
        try:
            async with self._channel() as channel:
                call: Any = channel.stream_stream(DELTA_METHOD)(metadata=self._metadata(node))
                for url in types:
                    await call.write(self._opening(node, url))
                while (data := await call.read()) is not grpc.aio.EOF:
                    answer = self._take(node, data, types, parses)
                    await call.write(answer.SerializeToString())
            self.broken += 1
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: on a write
            self.broken += 1
        self._news.set()

    def _opening(self, node: str, url: str) -> bytes:
        request = pb.DeltaDiscoveryRequest(type_url=url)
        request.node.id = f"ztunnel~{node}"
        request.node.metadata.fields["NODE_NAME"].string_value = node
        if self._sums.get(url):
            request.node.metadata.fields[SUMS_KEY].string_value = self._sums[url]
            return request.SerializeToString()
        return request.SerializeToString() + self._held(node, url)

    def _held(self, node: str, url: str) -> bytes:
        """Names and versions in an order of the node's own, as maps of different processes are."""
        if url not in self._entries:
            self._entries[url] = [
                pb.DeltaDiscoveryRequest(initial_resource_versions={name: each}).SerializeToString()
                for name, each in self._known.get(url, {}).items()
            ]
        entries = self._entries[url]
        at = crc32(node.encode()) % len(entries) if entries else 0
        return b"".join(entries[at:] + entries[:at])

    def _take(
        self, node: str, data: bytes, types: Sequence[str], parses: bool
    ) -> pb.DeltaDiscoveryRequest:
        """Take a response in, and make its answer."""
        now_s = time.monotonic()
        self.bytes[node] = self.bytes.get(node, 0) + len(data)
        self._news.set()
        if len(data) > PARSED_BYTES_MAX and not parses:
            url, nonce = end_of(data, types)
            return pb.DeltaDiscoveryRequest(type_url=url, response_nonce=nonce)
        response = pb.DeltaDiscoveryResponse.FromString(data)
        for each in response.resources:
            self.heard.setdefault(each.name, []).append(now_s)
            if parses:
                self.versions.setdefault(response.type_url, {})[each.name] = each.version
        asked = question_from_text(response.system_version_info)
        held = None if asked is None else entries_in(self._known[response.type_url], asked)
        return pb.DeltaDiscoveryRequest(
            type_url=response.type_url,
            response_nonce=response.nonce,
            initial_resource_versions=held,
        )


def _sums(versions: Mapping[str, str]) -> str:
    return sums_to_text(sums_of(versions)) if len(versions) >= WORTH_ENTRIES else ""


def end_of(data: bytes, types: Sequence[str]) -> tuple[str, str]:
    """Type and nonce of a response, which stand behind its resources."""
    for url in types:
        at = data.rfind(url.encode() + bytes([NONCE_TAG]))
        if at >= 0:
            since = at + len(url) + 2
            return url, data[since : since + data[since - 1]].decode()
    raise ValueError("no response of these types")
