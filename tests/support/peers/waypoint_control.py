"""A small control plane for one waypoint: it signs, and serves what it is given over delta ADS."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control.wire import certificates_pb2, discovery_pb2
from control.wire.types import CREATE_CERTIFICATE_METHOD, DELTA_METHOD
from tests.support.certificates import Authority, make_authority, pem

NAME = "control.test"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@dataclass
class WaypointControl:
    """`resources`: type URL → name → bytes; `put` changes them and tells every stream."""

    authority: Authority = field(default_factory=make_authority)
    ttl: timedelta = timedelta(hours=1)
    resources: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)  # one for each stream
    nodes: list[str] = field(default_factory=list)
    nacks: list[str] = field(default_factory=list)
    signed: int = 0
    port: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _versions: dict[tuple[str, str], str] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, type_url: str, name: str, body: bytes) -> None:
        self.resources.setdefault(type_url, {})[name] = body
        self._versions[type_url, name] = str(next(self._numbers))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def sign(self, data: bytes, _: Context) -> bytes:
        request = certificates_pb2.IstioCertificateRequest.FromString(data)
        csr = x509.load_pem_x509_csr(request.csr.encode())
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        now = datetime.now(UTC)  # noqa: TID251 Envoy judges it by the real clock
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.certificate.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + self.ttl)
            .add_extension(names, critical=True)
            .sign(self.authority.key, hashes.SHA256())
        )
        self.signed += 1
        chain = [pem(leaf).decode(), self.authority.pem.decode()]
        answer = certificates_pb2.IstioCertificateResponse(cert_chain=chain)
        return answer.SerializeToString()

    async def deltas(self, requests: AsyncIterator[bytes], context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        self.tokens.append(str(metadata.get("authorization", "")))
        held: dict[str, dict[str, str]] = {}
        wanted: dict[str, set[str]] = {}
        async with asyncio.TaskGroup() as tasks:
            news = asyncio.Event()
            reading = tasks.create_task(self._read(requests, held, wanted, news))
            while not reading.done():
                changed = self._changed
                for data in self._due(held, wanted):
                    await context.write(data)
                waits = [tasks.create_task(each.wait()) for each in (news, changed)]
                await asyncio.wait((*waits, reading), return_when=asyncio.FIRST_COMPLETED)
                news.clear()
                for each in waits:
                    each.cancel()

    async def _read(
        self,
        requests: AsyncIterator[bytes],
        held: dict[str, dict[str, str]],
        wanted: dict[str, set[str]],
        news: asyncio.Event,
    ) -> None:
        async for data in requests:
            request = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
            if request.node.id:
                self.nodes.append(request.node.id)
            if request.error_detail.message:
                self.nacks.append(request.error_detail.message)
            if request.type_url not in held:
                held[request.type_url] = dict(request.initial_resource_versions)
                wanted[request.type_url] = set()
            wanted[request.type_url] |= set(request.resource_names_subscribe)
            news.set()

    def _due(self, held: dict[str, dict[str, str]], wanted: dict[str, set[str]]) -> list[bytes]:
        out = []
        for type_url, has in held.items():
            response = discovery_pb2.DeltaDiscoveryResponse(
                type_url=type_url, nonce=str(next(self._numbers))
            )
            for name, body in self.resources.get(type_url, {}).items():
                version = self._versions[type_url, name]
                is_asked = not wanted[type_url] - {"*"} or name in wanted[type_url]
                if has.get(name) == version or not is_asked:
                    continue
                has[name] = version
                one = response.resources.add(name=name, version=version)
                one.resource.type_url, one.resource.value = type_url, body
            if response.resources or "" not in has:
                has[""] = ""  # the first answer may be empty; none is not
                out.append(response.SerializeToString())
        return out


@asynccontextmanager
async def serving(control: WaypointControl, port: int = 0) -> AsyncIterator[WaypointControl]:
    """Serve on loopback while the context lasts; again on the same port with `port`."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    for method, handler in (
        (CREATE_CERTIFICATE_METHOD, grpc.unary_unary_rpc_method_handler(control.sign)),
        (DELTA_METHOD, grpc.stream_stream_rpc_method_handler(control.deltas)),
    ):
        service, name = method[1:].split("/")
        handlers = grpc.method_handlers_generic_handler(service, {name: handler})
        server.add_generic_rpc_handlers((handlers,))
    own = control.authority.issue(hosts=(NAME,))
    credentials = grpc.ssl_server_credentials([(own.key_pem, own.chain_pem[0])])
    control.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield control
    finally:
        await server.stop(0)
