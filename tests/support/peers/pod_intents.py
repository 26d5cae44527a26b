"""A small real control plane for agents: serves tulle.node.v1 over TLS and takes reports."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message

from control.wire import discovery_pb2, node_pb2
from control.wire.types import DELTA_METHOD, NAMESPACE_TYPE, POD_TYPE, REPORT_METHOD

TOKEN = "a-node-token"
NAME = "control.test"


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """(key, certificate), self-signed; `folder/root.pem` is what a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(days=365 * 50)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365 * 20))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = made.public_bytes(serialization.Encoding.PEM)
    (folder / "root.pem").write_bytes(chain)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, chain


def pod(uid: str, node: str, *, enrolled: bool, **fields: Any) -> node_pb2.Pod:
    values = {"name": uid, "namespace": "shop", "service_account": "web", **fields}
    return node_pb2.Pod(uid=uid, node=node, enrolled=enrolled, **values)


class PodIntents:
    def __init__(self) -> None:
        self.pods: dict[str, node_pb2.Pod] = {}
        self.namespaces: dict[str, node_pb2.Namespace] = {}  # told if there are any
        self.reports: list[frozenset[str]] = []
        self.port = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[None]:
        pem, chain = certificate(folder)
        (folder / "token").write_text(TOKEN + "\n")
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(self),))
        credentials = grpc.ssl_server_credentials([(pem, chain)])
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)

    async def put(self, *pods: node_pb2.Pod) -> None:
        async with self._changed:
            for each in pods:
                self.pods[each.uid] = each
            self._changed.notify_all()

    async def remove(self, uid: str) -> None:
        async with self._changed:
            del self.pods[uid]
            self._changed.notify_all()

    async def reported(self, wanted: set[str], timeout_s: float = 10) -> None:
        """Wait until the last report is this one."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(
                lambda: bool(self.reports) and self.reports[-1] == frozenset(wanted)
            )

    async def stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        await _authenticate(context)
        first = discovery_pb2.DeltaDiscoveryRequest.FromString(await anext(aiter(requests), b""))
        assert first.type_url == POD_TYPE, first.type_url
        held = dict(first.initial_resource_versions)
        named: dict[str, str] = {}
        nonce = 0
        while True:
            async with self._changed:
                responses = [
                    _difference(POD_TYPE, held, self.pods),
                    _difference(NAMESPACE_TYPE, named, self.namespaces),
                ]
                news = [each for each in responses if each.resources or each.removed_resources]
                if nonce and not news:
                    await self._changed.wait()
                    continue
            for response in news or responses[:1]:
                nonce += 1
                response.nonce = str(nonce)
                yield response.SerializeToString()

    async def report(
        self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        await _authenticate(context)
        async with self._changed:
            message = node_pb2.ReportRequest.FromString(request)
            self.reports.append(frozenset(message.captured_uids))
            self._changed.notify_all()
        return node_pb2.ReportResponse().SerializeToString()


def _difference(
    type_url: str, held: dict[str, str], values: Mapping[str, Message]
) -> discovery_pb2.DeltaDiscoveryResponse:
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url)
    for uid, each in values.items():
        data = each.SerializeToString(deterministic=True)
        version = hashlib.sha256(data).hexdigest()[:8]
        if held.get(uid) != version:
            held[uid] = version
            resource = response.resources.add(name=uid, version=version)
            resource.resource.type_url = type_url
            resource.resource.value = data
    for uid in set(held) - set(values):
        del held[uid]
        response.removed_resources.append(uid)
    return response


async def _authenticate(context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    metadata = dict(context.invocation_metadata() or ())
    if metadata.get("authorization") != f"Bearer {TOKEN}":
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    def __init__(self, intents: PodIntents) -> None:
        self._intents = intents

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == DELTA_METHOD:
            return grpc.stream_stream_rpc_method_handler(self._intents.stream)
        if details.method == REPORT_METHOD:
            return grpc.unary_unary_rpc_method_handler(self._intents.report)
        return None
