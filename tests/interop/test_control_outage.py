"""A real control plane that starts while its source is away: nodes hear what it knew before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.wire import certificates_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo
from control.wire.types import ADDRESS_TYPE, CREATE_CERTIFICATE_METHOD
from tests.support.kube.server import KubeServer, serving
from tests.support.manifests import pod
from tests.support.peers.delta_client import Stream, open_stream, secure_channel
from tests.support.processes.control import Control, starting_control

DEADLINE_S = 20.0
NAMESPACE = "tulle-system"


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop", {"istio.io/dataplane-mode": "ambient"})
        server.namespace(NAMESPACE)
        server.install_istio_kinds()
        server.put(yaml.safe_load(pod()))
        yield server


def flags(folder: Path, api: KubeServer) -> tuple[str, ...]:
    value = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(value))
    return "--kubernetes", "--kubeconfig", str(path)


def node_token(api: KubeServer) -> str:
    return api.token("tulle-ztunnel", audience="istio-ca", namespace=NAMESPACE, pod="z1")


async def signs(control: Control, token: str) -> x509.Certificate:
    """A leaf for the pod, from this control plane."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    request = pb.IstioCertificateRequest(csr=pem, validity_duration=3600)
    request.metadata.update({"ImpersonatedIdentity": "spiffe://cluster.local/ns/shop/sa/default"})
    async with secure_channel(control.port, control.root_pem) as channel:
        call = channel.unary_unary(CREATE_CERTIFICATE_METHOD)
        data = await call(
            request.SerializeToString(),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=DEADLINE_S,
        )
    chain = pb.IstioCertificateResponse.FromString(data).cert_chain
    return x509.load_pem_x509_certificate(chain[0].encode())


async def sees(control: Control, *names: str) -> None:
    """Wait until a node of this control plane knows exactly these pods."""
    client = DeltaClient(NodeInfo("n1", metadata={"NODE_NAME": "n1"}), (ADDRESS_TYPE,))

    def knows(stream: Stream) -> bool:
        found = stream.resources.get(ADDRESS_TYPE, {})
        return {name.rpartition("/")[2] for name in found} == set(names)

    async with (
        secure_channel(control.port, control.root_pem) as channel,
        open_stream(channel, client, control.token("n1")) as stream,
        asyncio.timeout(DEADLINE_S),
    ):
        await stream.until(knows)


def test_a_start_without_the_api_server_serves_the_last_good_state(
    api: KubeServer, tmp_path: Path
) -> None:
    given = (*flags(tmp_path, api), "--ca-in-state")

    async def main() -> None:
        async with starting_control(tmp_path, *given) as control:
            await control.started()
            await sees(control, "web")
        with api.away():
            async with starting_control(tmp_path, *given) as control:
                await control.started()
                await sees(control, "web")
                source = (await control.admin("/status"))["source"]
                assert source["is_kept"]
                assert "cannot be reached" in source["trouble"]
        async with starting_control(tmp_path, *given) as control:
            await control.started()
            assert not (await control.admin("/status"))["source"]["is_kept"]
            api.put(yaml.safe_load(pod(name="two", address="10.1.0.2")))
            await sees(control, "web", "two")

    asyncio.run(main())


def test_nodes_get_certificates_from_a_control_plane_that_started_without_the_api_server(
    api: KubeServer, tmp_path: Path
) -> None:
    """By its CA of before, with a token that was vouched for, and with one that only the keys of
    the cluster prove: its node was at another replica."""
    given = flags(tmp_path, api)
    account = {"name": "tulle-ztunnel", "namespace": NAMESPACE}
    api.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    head = {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}}
    spec = {"nodeName": "n1", "containers": []}
    api.put({**head, "metadata": {"name": "z1", "namespace": NAMESPACE}, "spec": spec})
    known, other = node_token(api), node_token(api)

    async def main() -> None:
        async with starting_control(tmp_path, *given) as control:
            await control.started()
            before = await signs(control, known)
            root = control.root_pem
        with api.away():
            async with starting_control(tmp_path, *given) as control:
                await control.started()
                await control.logged("token_keys.away")
                assert control.root_pem == root
                for token in (known, other):
                    leaf = await signs(control, token)
                    assert leaf.issuer == before.issuer
                await control.logged("token.proved")

    asyncio.run(main())


def test_a_start_without_its_folder_serves_the_last_good_state(tmp_path: Path) -> None:
    manifests, away = tmp_path / "manifests", tmp_path / "away"
    given = ("--manifests", str(manifests))
    manifests.mkdir()
    (manifests / "a.yaml").write_text(pod())

    async def main() -> None:
        async with starting_control(tmp_path, *given) as control:
            await control.started()
            await sees(control, "web")
        manifests.rename(away)
        async with starting_control(tmp_path, *given) as control:
            await control.started()
            await sees(control, "web")
            (away / "b.yaml").write_text(pod(name="two", address="10.1.0.2"))
            away.rename(manifests)
            await sees(control, "web", "two")
            await control.logged("source.back")

    asyncio.run(main())
