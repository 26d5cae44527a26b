"""Attacks on the control plane's port of a running mesh."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.kit.clock import SystemClock
from control.server.ca.keys import load_token_key
from control.server.callers.tokens import NodeTokens, subject_of
from control.wire import certificates_pb2, node_pb2
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import (
    ADDRESS_TYPE,
    CREATE_CERTIFICATE_METHOD,
    POD_TYPE,
    REPORT_METHOD,
)
from tests.netns.mesh.hostile_rig import ID
from tests.support.lab.mesh_attack import (
    control_port,
)
from tests.support.lab.mesh_bed import PORT, Bed, soon
from tests.support.peers.delta_client import open_stream, secure_channel

pytestmark = pytest.mark.alone


def token_of(bed: Bed, node: str, ttl: timedelta = timedelta(hours=1)) -> str:
    key = load_token_key(bed.lab.run_dir / "control" / "state")
    return NodeTokens(key, subject_of("istio-system"), SystemClock()).issue(node, ttl)


def csr(*uris: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def root_pem(bed: Bed) -> bytes:
    return (bed.lab.run_dir / "control" / "state" / "ca" / "root-cert.pem").read_bytes()


async def ask(bed: Bed, port: int, method: str, message: bytes, token: str) -> grpc.StatusCode:
    async with secure_channel(port, root_pem(bed), "tulle-control") as channel:
        call = channel.unary_unary(method)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            await call(message, metadata=metadata, timeout=8)
        except grpc.aio.AioRpcError as exc:
            return exc.code()
        return grpc.StatusCode.OK


def sign(bed: Bed, token: str, csr_pem: str, impersonated: str = "") -> grpc.StatusCode:
    message = certificates_pb2.IstioCertificateRequest(csr=csr_pem, validity_duration=3600)
    if impersonated:
        message.metadata.fields["ImpersonatedIdentity"].string_value = impersonated
    with control_port(bed) as port:
        return asyncio.run(
            ask(bed, port, CREATE_CERTIFICATE_METHOD, message.SerializeToString(), token)
        )


def test_a_node_gets_certificates_of_its_own_pods_only(bed: Bed) -> None:
    here, there = token_of(bed, bed.here), token_of(bed, bed.there)
    assert sign(bed, here, csr(ID)) is grpc.StatusCode.OK
    tampered = here[:-2] + ("AA" if here[-2:] != "AA" else "BB")
    refused = {
        "an account of another node": sign(bed, there, csr(ID)),
        "the same, impersonated": sign(bed, there, csr(), ID),
        "impersonation against the request": sign(
            bed, here, csr(ID), ID.replace("client", "other")
        ),
        "two names": sign(bed, here, csr(ID, ID.replace("client", "other"))),
        "one name twice": sign(bed, here, csr(ID, ID)),
        "another trust domain": sign(bed, here, csr(ID.replace("cluster.local", "evil.local"))),
        "an account nobody runs": sign(bed, here, csr(ID.replace("client", "admin"))),
        "an outsider's account": sign(
            bed, there, csr("spiffe://cluster.local/ns/plain/sa/default")
        ),
        "the tunnel's own": sign(
            bed, here, csr("spiffe://cluster.local/ns/istio-system/sa/ztunnel")
        ),
        "no name": sign(bed, here, csr()),
        "path tricks": sign(bed, here, csr(ID.replace("/sa/", "/../mesh/sa/"))),
        "garbage": sign(bed, here, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"),
        "huge": sign(bed, here, "A" * 1_000_000),
        "no token": sign(bed, "", csr(ID)),
        "expired token": sign(bed, token_of(bed, bed.here, timedelta(seconds=-5)), csr(ID)),
        "tampered token": sign(bed, tampered, csr(ID)),
        "token without signature": sign(bed, here.rpartition(".")[0] + ".", csr(ID)),
    }
    assert {name: code for name, code in refused.items() if code is grpc.StatusCode.OK} == {}
    soon(lambda: bed.yes(("client", "server", PORT)), "the mesh goes on")


def test_a_node_speaks_for_itself_only(bed: Bed) -> None:
    here = token_of(bed, bed.here)
    report = node_pb2.ReportRequest(node=bed.there, captured_uids=[]).SerializeToString()

    async def streams(node: str, token: str) -> dict[str, bytes]:
        async with secure_channel(port, root_pem(bed), "tulle-control") as channel:
            info = NodeInfo(f"ztunnel~{node}", metadata={"NODE_NAME": node})
            client = DeltaClient(info, (POD_TYPE, ADDRESS_TYPE))
            async with open_stream(channel, client, token) as stream:
                await stream.until(lambda each: POD_TYPE in each.resources)
                return stream.resources[POD_TYPE]

    with control_port(bed) as port:
        code = asyncio.run(ask(bed, port, REPORT_METHOD, report, here))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert len(asyncio.run(streams(bed.here, here))) == 4
        for token in (here, ""):
            with pytest.raises(EOFError):
                asyncio.run(streams(bed.there, token))
    assert bed.yes(("client", "server", PORT))
    assert bed.captured() == {"client", "other", "near", "server"}
