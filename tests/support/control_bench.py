"""A control plane under attack beside an honest node, with its memory and its answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.server.callers.budget import MIB
from control.wire import certificates_pb2
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import (
    ADDRESS_TYPE,
    CREATE_CERTIFICATE_METHOD,
)
from tests.support.peers.delta_client import open_stream, secure_channel
from tests.support.processes.control import Control, running_control

PODS = 400  # half of them on each node
HONEST, HOG = "n2", "n1"
ANSWERED_S = 3.0  # what a node waits at most; a tenth of it on a machine with nothing else to do
MEMORY_GROWTH = 1.5


def manifests() -> str:
    return "---\n".join(
        f"""apiVersion: v1
kind: Pod
metadata: {{name: p{at}, namespace: demo}}
spec: {{serviceAccountName: sa{at % 2}, nodeName: {(HOG, HONEST)[at % 2]}}}
status: {{phase: Running, podIPs: [{{ip: 10.0.{at // 256}.{at % 256}}}]}}
"""
        for at in range(PODS)
    )


class Bench:
    def __init__(self, control: Control) -> None:
        self.control = control
        self.idle = self.memory()

    def memory(self) -> float:
        return psutil.Process(self.control.process.pid).memory_info().rss / MIB

    def token(self, node: str = HOG) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.control.token(node)}"),)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            f"127.0.0.1:{self.control.port}",
            grpc.ssl_channel_credentials(self.control.root_pem),
            options=[
                ("grpc.ssl_target_name_override", "tulle-control"),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )

    async def honest_s(self) -> float:
        """The longest that an honest node waits for a certificate or for its first state."""
        took = []
        for _ in range(3):
            started_s = time.monotonic()
            async with self.channel() as channel:
                request = csr_request("spiffe://cluster.local/ns/demo/sa/sa1")
                await channel.unary_unary(CREATE_CERTIFICATE_METHOD)(
                    request, metadata=self.token(HONEST), timeout=20
                )
            took.append(time.monotonic() - started_s)
            started_s = time.monotonic()
            client = DeltaClient(NodeInfo("x", metadata={"NODE_NAME": HONEST}), (ADDRESS_TYPE,))
            async with (
                secure_channel(self.control.port, self.control.root_pem) as channel,
                open_stream(channel, client, self.control.token(HONEST)) as stream,
            ):
                await stream.until(lambda each: ADDRESS_TYPE in each.resources)
            took.append(time.monotonic() - started_s)
        return max(took)

    async def check(self, buffers: float = 0.0) -> None:
        assert await self.honest_s() < ANSWERED_S
        assert self.memory() < MEMORY_GROWTH * self.idle + buffers

    async def refused(self) -> dict[str, int]:
        """Refusals by reason, of all tenants."""
        found: dict[str, int] = {}
        for row in await self.control.admin("/callers"):
            for reason, count in row["refused"].items():
                found[reason] = found.get(reason, 0) + count
        return found


def csr_request(identity: str) -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    return certificates_pb2.IstioCertificateRequest(csr=pem).SerializeToString()


def run(folder: Path, test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        (folder / "manifests").mkdir(exist_ok=True)
        (folder / "manifests/pods.yaml").write_text(manifests())
        async with running_control(folder) as control:
            bench = Bench(control)
            await bench.honest_s()
            bench.idle = bench.memory()
            await test(bench)

    asyncio.run(whole())
