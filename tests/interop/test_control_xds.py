"""The control plane as a process, over real gRPC and TLS: xDS, certificates, enrolment."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.model.policy import Connection, Deny, decide
from control.model.workload import TunnelProtocol, Workload
from control.wire import (
    certificates_pb2,
    convert,
    convert_policy,
    node_pb2,
    security_pb2,
    workload_pb2,
)
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CREATE_CERTIFICATE_METHOD,
    POD_TYPE,
    REPORT_METHOD,
)
from tests.support.certificates import make_authority
from tests.support.peers.delta_client import Stream, open_stream, secure_channel
from tests.support.processes.control import Control, running_control

VECTOR = Path(__file__).parents[1] / "vectors/istiod/01-basic.yaml"
TYPES = (ADDRESS_TYPE, AUTHORIZATION_TYPE)
WEB_1 = "Kubernetes//Pod/shop/web-1"
WEB = "shop/web.shop.svc.cluster.local"
STRICT = """
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def run(test: Callable[[Control], Coroutine[Any, Any, None]], folder: Path, *flags: str) -> None:
    async def whole() -> None:
        (folder / "manifests").mkdir()
        (folder / "manifests/basic.yaml").write_bytes(VECTOR.read_bytes())
        async with running_control(folder, *flags) as control:
            await test(control)

    asyncio.run(whole())


def delta_client(node: str = "n1", types: tuple[str, ...] = TYPES, **kwargs: Any) -> DeltaClient:
    return DeltaClient(NodeInfo(f"ztunnel~{node}", metadata={"NODE_NAME": node}), types, **kwargs)


@asynccontextmanager
async def connected(
    control: Control, client: DeltaClient | None = None, node: str = "n1"
) -> AsyncIterator[Stream]:
    async with (
        secure_channel(control.port, control.root_pem) as channel,
        open_stream(channel, client or delta_client(node), control.token(node)) as stream,
    ):
        yield stream


def synced(stream: Stream) -> bool:
    return stream.client.synced


def test_a_first_stream_gets_everything_and_the_cluster_vectors(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with connected(control) as stream:
            await stream.until(synced)
            held = stream.resources[ADDRESS_TYPE]
            assert set(held) == {
                WEB_1,
                "Kubernetes//Pod/shop/web-2",
                "Kubernetes//Pod/plain/old",
                WEB,
                "shop/web-headless.shop.svc.cluster.local",
                "plain/old.plain.svc.cluster.local",
            }
            workload = workload_pb2.Address.FromString(held[WEB_1]).workload
            assert workload.tunnel_protocol == workload_pb2.HBONE
            assert stream.resources[AUTHORIZATION_TYPE] == {}

    run(test, tmp_path)


def test_a_changed_file_is_pushed_within_a_second_policy_before_address(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with connected(control) as stream:
            await stream.until(synced)
            started_s = time.monotonic()
            (control.manifests / "strict.yaml").write_text(STRICT)
            await stream.until(lambda s: len(s.updates) == 4)
            assert time.monotonic() - started_s < 1.0
            policy, address = stream.updates[2:]
            assert [each.name for each in policy.added] == [
                "istio-system/istio_converted_static_strict"
            ]
            assert WEB_1 in {each.name for each in address.added}
            (control.manifests / "strict.yaml").unlink()
            await stream.until(lambda s: len(s.updates) == 6)
            assert [each.type_url for each in stream.updates[4:]] == [
                ADDRESS_TYPE,
                AUTHORIZATION_TYPE,
            ]

    run(test, tmp_path)


def test_a_broken_file_changes_nothing_and_a_broken_policy_denies(tmp_path: Path) -> None:
    broken = STRICT.replace("PeerAuthentication", "AuthorizationPolicy").replace(
        "{mtls: {mode: STRICT}}", "{rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}"
    )

    async def test(control: Control) -> None:
        async with connected(control) as stream:
            await stream.until(synced)
            (control.manifests / "basic.yaml").write_text("a: [")
            (control.manifests / "policy.yaml").write_text(broken)
            await stream.until(lambda s: len(s.updates) == 3)
            assert len(stream.resources[ADDRESS_TYPE]) == 6
            (data,) = stream.resources[AUTHORIZATION_TYPE].values()
            policy = convert_policy.policy_from_wire(security_pb2.Authorization.FromString(data))
            assert isinstance(decide([policy], CONNECTION), Deny)
        line = await control.logged("policy.rejected")
        assert "policy.yaml line=5" in line
        await control.logged("manifest.rejected")  # a file that shrank may not be whole yet
        problems = await control.admin("/problems")
        assert {each["reason"] for each in problems} == {"yaml", "invalid"}

    run(test, tmp_path)


CONNECTION = Connection(None, b"\x0a\0\0\1", b"\x0a\0\0\2", 80)  # type: ignore[arg-type]  # packed


def test_an_untrusted_control_plane_leaves_no_line_that_is_not_ours(tmp_path: Path) -> None:
    """gRPC's core wrote one of its own for each failed handshake, between lines of JSON."""
    strangers = tmp_path / "root.pem"
    strangers.write_bytes(make_authority("elsewhere").pem)
    code = (
        "import asyncio, pathlib, sys\n"
        "from control.wire.channel import open_channel\n"
        "import grpc\n"
        "async def main():\n"
        "    pem = pathlib.Path(sys.argv[2]).read_bytes()\n"
        "    async with open_channel(sys.argv[1], pem, 'localhost') as channel:\n"
        "        try:\n"
        "            await channel.unary_unary('/a/b')(b'', timeout=10)\n"
        "        except grpc.aio.AioRpcError as exc:\n"
        "            print(exc.code().name, exc.details())\n"
        "asyncio.run(main())\n"
    )

    async def test(control: Control) -> None:
        command = [sys.executable, "-c", code, f"127.0.0.1:{control.port}", str(strangers)]
        pipe = asyncio.subprocess.PIPE
        told = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=told)
        out, err = await process.communicate()
        assert out.startswith(b"UNAVAILABLE")
        assert err == b""

    run(test, tmp_path)


@pytest.mark.parametrize("sums_from", [1, 1024])  # with sums and with a list
def test_a_reconnect_sends_only_what_changed_meanwhile(tmp_path: Path, sums_from: int) -> None:
    async def test(control: Control) -> None:
        client = delta_client(sums_from=sums_from)
        async with connected(control, client) as stream:
            await stream.until(synced)
        text = (control.manifests / "basic.yaml").read_text()
        head, old = text.split("kind: Pod\nmetadata: {name: old")
        rest = old.split("---", 1)[1]
        (control.manifests / "basic.yaml").write_text(
            head.replace("v2", "v3") + "kind: List" + "\n---" + rest
        )
        await control.logged("mesh.published .*address=2")
        async with connected(control, client) as stream:
            await stream.until(lambda s: any(each.added for each in s.updates))
            (address,) = (each for each in stream.updates if each.added)
            assert any(each.asked for each in stream.updates) is (sums_from == 1)
            assert [each.name for each in address.added] == [WEB_1]
            assert address.removed == ("Kubernetes//Pod/plain/old",)

    run(test, tmp_path)


def test_a_rejected_resource_is_not_sent_again_until_it_changes(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with connected(control, delta_client(types=(ADDRESS_TYPE,))) as stream:
            await stream.next({WEB_1: "no"})
            await control.logged(f"xds.nacked .*{WEB_1}: no")
            path = control.manifests / "basic.yaml"
            path.write_text(path.read_text().replace("app: web, version: v2", "app: web2"))
            update = await stream.next()
            assert WEB_1 in {each.name for each in update.added}
            (node,) = (await control.admin("/status"))["nodes"]
            assert node["types"]["Address"]["nacks"] == 1

    run(test, tmp_path)


def test_two_clients_get_the_same_bytes(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with connected(control) as one, connected(control, node="n2") as two:
            await one.until(synced)
            await two.until(synced)
            assert sorted(one.raw) == sorted(two.raw)

    run(test, tmp_path)


def test_on_demand_answers_every_name(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        client = delta_client("n9", types=(ADDRESS_TYPE,), on_demand=(ADDRESS_TYPE,))
        async with connected(control, client, "n9") as stream:
            assert (await stream.next()).added == ()
            await stream.send(client.subscribe(ADDRESS_TYPE, [WEB, "/10.99.99.99"]))
            update = await stream.next()
            names = {each.name for each in update.added}
            assert names == {WEB, WEB_1, "Kubernetes//Pod/shop/web-2"}
            assert update.removed == ("/10.99.99.99",)
            by_name = {each.name: each for each in update.added}
            assert by_name[WEB_1].aliases == ("/10.1.0.1", "/fd00:1::1")
            await stream.send(client.subscribe(ADDRESS_TYPE, ["/10.1.0.3"]))
            assert [each.name for each in (await stream.next()).added] == [
                "Kubernetes//Pod/plain/old"
            ]

    run(test, tmp_path)


def test_on_demand_brings_a_nodes_own_workloads_unasked(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        client = delta_client(types=(ADDRESS_TYPE,), on_demand=(ADDRESS_TYPE,))
        async with connected(control, client) as stream:
            got = {each.name for each in (await stream.next()).added}
            assert {each for each in got if "/Pod/" in each} == {WEB_1, "Kubernetes//Pod/plain/old"}

    run(test, tmp_path)


def make_csr(uri: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return key, csr.public_bytes(serialization.Encoding.PEM).decode()


async def ask(
    control: Control, identity: str, node: str = "n1", token: str | None = None
) -> tuple[ec.EllipticCurvePrivateKey, list[str]]:
    key, csr = make_csr(identity)
    request = certificates_pb2.IstioCertificateRequest(csr=csr, validity_duration=3600)
    request.metadata.update({"ImpersonatedIdentity": identity})
    metadata = (("authorization", f"Bearer {token or control.token(node)}"), ("clusterid", "x"))
    async with secure_channel(control.port, control.root_pem) as channel:
        method = channel.unary_unary(CREATE_CERTIFICATE_METHOD)
        data = await method(request.SerializeToString(), metadata=metadata, timeout=10)
    return key, list(certificates_pb2.IstioCertificateResponse.FromString(data).cert_chain)


def test_a_certificate_is_signed_for_a_pod_of_the_node_and_nobody_else(tmp_path: Path) -> None:
    identity = "spiffe://cluster.local/ns/shop/sa/web"

    async def test(control: Control) -> None:
        key, (leaf_pem, root_pem) = await ask(control, identity)
        leaf = x509.load_pem_x509_certificate(leaf_pem.encode())
        root = x509.load_pem_x509_certificate(root_pem.encode())
        leaf.verify_directly_issued_by(root)
        assert root_pem.encode() == control.root_pem
        assert leaf.public_key() == key.public_key()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.critical
        assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [identity]
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        for bad, node in [
            ("spiffe://cluster.local/ns/shop/sa/other", "n1"),
            ("spiffe://elsewhere/ns/shop/sa/web", "n1"),
            (identity, "n3"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(control, bad, node)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.details() == "unauthenticated"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(control, identity, token="rubbish.to.ken")
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED

    run(test, tmp_path)


def test_a_stream_needs_a_token_of_its_own_node(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with secure_channel(control.port, control.root_pem) as channel:
            for token, types, code in [
                ("rubbish", (), grpc.StatusCode.UNAUTHENTICATED),
                (control.token("n2"), (ADDRESS_TYPE,), grpc.StatusCode.PERMISSION_DENIED),
            ]:
                # No write before the refusal that needs none, and one before the other: a write
                # that meets the refusal hides its code from a gRPC client.
                client = delta_client("n1", types)
                async with open_stream(channel, client, token) as stream:
                    with pytest.raises(EOFError) as caught:
                        await stream.receive()
                    assert caught.value.args[0] == code

    run(test, tmp_path)


async def report(control: Control, node: str, *uids: str) -> None:
    request = node_pb2.ReportRequest(node=node, captured_uids=uids)
    async with secure_channel(control.port, control.root_pem) as channel:
        await channel.unary_unary(REPORT_METHOD)(
            request.SerializeToString(),
            metadata=(("authorization", f"Bearer {control.token(node)}"),),
            timeout=10,
        )


def protocol(stream: Stream, uid: str) -> TunnelProtocol:
    message = workload_pb2.Address.FromString(stream.resources[ADDRESS_TYPE][uid])
    value = convert.resource_from_wire(message)
    assert isinstance(value, Workload)
    return value.tunnel_protocol


def test_a_report_makes_a_pod_hbone_and_a_restart_remembers_it(tmp_path: Path) -> None:
    old = "Kubernetes//Pod/plain/old"

    async def test(control: Control) -> None:
        async with connected(control, delta_client(types=(*TYPES, POD_TYPE))) as stream:
            await stream.until(synced)
            pods = [node_pb2.Pod.FromString(each) for each in stream.resources[POD_TYPE].values()]
            assert {each.name: each.enrolled for each in pods} == {"web-1": True, "old": False}
            assert protocol(stream, old) is TunnelProtocol.NONE
            (uid,) = (each.uid for each in pods if each.name == "old")
            await report(control, "n1", uid)
            await stream.until(lambda s: protocol(s, old) is TunnelProtocol.HBONE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with secure_channel(control.port, control.root_pem) as channel:
                    await channel.unary_unary(REPORT_METHOD)(
                        node_pb2.ReportRequest(node="n2").SerializeToString(),
                        metadata=(("authorization", f"Bearer {control.token('n1')}"),),
                        timeout=10,
                    )
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        root = control.root_pem
        control.process.terminate()
        assert await control.process.wait() == 0
        async with running_control(tmp_path) as again:
            assert again.root_pem == root
            async with connected(again) as stream:
                await stream.until(synced)
                assert protocol(stream, old) is TunnelProtocol.HBONE

    run(test, tmp_path)


def test_a_stop_ends_streams_at_once_and_in_order(tmp_path: Path) -> None:
    async def test(control: Control) -> None:
        async with connected(control) as stream:
            await stream.until(synced)
            control.process.terminate()
            with pytest.raises(EOFError) as caught:
                await stream.receive()
            assert caught.value.args[0] == grpc.StatusCode.OK
            assert await control.process.wait() == 0
        await control.logged("control.stopped")
        ends = [each for each in control.lines if "disconnected" in each or "stopped" in each]
        assert len(ends) == 2
        assert "control.stopped" in ends[1]

    run(test, tmp_path)
