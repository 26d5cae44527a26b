"""The certificate method: a leaf for who may have it, one opaque no for everybody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.model.identity import SpiffeId
from control.server.ca.keys import Authority, load_authority
from control.server.ca.requests import WAITING_MAX, CertificateService
from control.server.callers.door import Door
from control.server.callers.tokens import NodeTokens
from control.server.metrics import Metrics
from control.wire import certificates_pb2 as pb
from tests.support.calls import Aborted, Call
from tests.support.clock import FakeClock

WEB = SpiffeId("cluster.local", "shop", "web")
KEY = ec.generate_private_key(ec.SECP256R1())
CSR = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.PEM)
    .decode()
)
CLOCK = FakeClock()
TOKENS = NodeTokens(b"k" * 32, "ztunnel", CLOCK)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return load_authority(tmp_path_factory.mktemp("ca"), "cluster.local", CLOCK)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def service(authority: Authority, metrics: Metrics) -> CertificateService:
    """`web` runs on n1, and nothing else runs anywhere."""
    return CertificateService(
        authority,
        "cluster.local",
        timedelta(hours=12),
        lambda node, identity: (node, identity) == ("n1", WEB),
        door=Door(TOKENS, metrics),
        metrics=metrics,
        clock=CLOCK,
    )


def call(node: str = "n1") -> Call:
    return Call(f"Bearer {TOKENS.issue(node, timedelta(hours=1))}")


def request(identity: str = str(WEB), csr: str = CSR, ttl_s: int = 3600) -> bytes:
    message = pb.IstioCertificateRequest(csr=csr, validity_duration=ttl_s)
    message.metadata["ImpersonatedIdentity"] = identity
    return message.SerializeToString()


def ask(service: CertificateService, data: bytes, node: str = "n1") -> list[str]:
    answer = asyncio.run(service.create(data, call(node)))
    return list(pb.IstioCertificateResponse.FromString(answer).cert_chain)


def test_a_pod_of_the_node_gets_its_leaf_and_the_root(
    service: CertificateService, authority: Authority, metrics: Metrics
) -> None:
    leaf_pem, root_pem = ask(service, request())
    leaf = x509.load_pem_x509_certificate(leaf_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
    assert leaf.not_valid_after_utc - CLOCK.now() == timedelta(hours=1)
    assert leaf.public_key() == KEY.public_key()
    assert root_pem == authority.root_pem
    counted = {"result": "signed", "reason": ""}
    assert metrics.registry.get_sample_value("tulle_control_csr_total", counted) == 1


def test_a_long_life_is_cut_to_the_cap(service: CertificateService) -> None:
    leaf = x509.load_pem_x509_certificate(ask(service, request(ttl_s=10**6))[0].encode())
    assert leaf.not_valid_after_utc - CLOCK.now() == timedelta(hours=12)


@pytest.mark.parametrize(
    ("data", "node", "reason"),
    [
        (request(), "n2", "no_such_pod_on_node"),
        (request("spiffe://cluster.local/ns/shop/sa/other"), "n1", "no_such_pod_on_node"),
        (request("spiffe://other/ns/shop/sa/web"), "n1", "other_trust_domain"),
        (request(csr="junk"), "n1", "csr_malformed"),
        (b"\xff", "n1", "message_malformed"),
    ],
)
def test_every_no_sounds_the_same_and_has_its_own_counter(
    service: CertificateService, metrics: Metrics, data: bytes, node: str, reason: str
) -> None:
    with pytest.raises(Aborted) as ended:
        ask(service, data, node)
    assert (ended.value.code, ended.value.message) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "unauthenticated",
    )
    counted = {"result": "refused", "reason": reason}
    assert metrics.registry.get_sample_value("tulle_control_csr_total", counted) == 1


def test_too_many_at_once_are_asked_to_come_again(service: CertificateService) -> None:
    async def scenario() -> list[Any]:
        asked = [service.create(request(), call()) for _ in range(WAITING_MAX + 5)]
        return await asyncio.gather(*asked, return_exceptions=True)  # noqa: TID251 all outcomes

    outcomes = asyncio.run(scenario())
    refused = [each for each in outcomes if isinstance(each, Aborted)]
    assert {each.code for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) == 5
    assert ask(service, request()), "afterwards there is room again"
