"""The certificate method: a leaf for who may have it, one opaque no for everybody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.model.identity import SpiffeId
from control.model.route import WaypointKey
from control.server.ca import requests
from control.server.ca.authority import Authority
from control.server.ca.keys import load_authority
from control.server.ca.requests import CertificateService
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import node_tenant
from control.server.callers.door import AdmittedCall, Door
from control.server.callers.tokens import Caller, NodeTokens
from control.server.metrics import Metrics
from control.wire import certificates_pb2 as pb
from tests.support.authorities import held
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
        held(authority, CLOCK),
        "cluster.local",
        timedelta(hours=12),
        lambda node, identity: (node, identity) == ("n1", WEB),
        door=Door(TOKENS, Arrivals(metrics, CLOCK, 100)),
        metrics=metrics,
        clock=CLOCK,
    )


def call(node: str = "n1") -> AdmittedCall:
    return AdmittedCall(Caller(node, "ztunnel"), node_tenant(node), "10.0.0.1:40000")


def request(identity: str = str(WEB), csr: str = CSR, ttl_s: int = 3600) -> bytes:
    message = pb.IstioCertificateRequest(csr=csr, validity_duration=ttl_s)
    message.metadata["ImpersonatedIdentity"] = identity
    return message.SerializeToString()


def ask(service: CertificateService, data: bytes, node: str = "n1") -> list[str]:
    answer = asyncio.run(service.create(data, call(node), Call()))
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


def test_a_node_over_its_pace_is_asked_to_come_again_and_no_other_is(
    service: CertificateService, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(requests.asyncio, "sleep", sleep)
    pace = service._pace
    pace.spend(node_tenant("n1"), pace.pace.burst + pace.pace.per_s, CLOCK.monotonic_s())
    assert ask(service, request())
    assert slept == [1.0]
    pace.spend(node_tenant("n1"), pace.pace.per_s * requests.PACE_WAIT_S, CLOCK.monotonic_s())
    with pytest.raises(Aborted) as ended:
        ask(service, request())
    assert ended.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(Aborted) as ended:
        ask(service, request(), "n2")
    assert ended.value.code is grpc.StatusCode.UNAUTHENTICATED, "it was asked in time"


def test_the_requests_of_one_node_wait_for_one_of_another_at_most(
    service: CertificateService,
) -> None:
    order: list[str] = []

    async def one(node: str) -> None:
        try:
            await service.create(request(), call(node), Call())
        except Aborted:
            pass  # n2 has no such pod, which is found out in its turn
        order.append(node)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(one("n1"))
            await asyncio.sleep(0)
            tasks.create_task(one("n2"))

    asyncio.run(scenario())
    assert order.index("n2") <= 3


@pytest.mark.parametrize(
    ("waypoint", "identity", "node", "reason"),
    [
        (WaypointKey("shop", "web"), WEB, "n1", None),
        (WaypointKey("shop", "web"), WEB, "n2", "no_such_pod_on_node"),
        (WaypointKey("shop", "other"), WEB, "n1", "not_its_own"),
        (WaypointKey("web", "shop"), WEB, "n1", "not_its_own"),
        (WaypointKey("shop", "web"), SpiffeId("other", "shop", "web"), "n1", "other_trust_domain"),
    ],
)
def test_a_waypoint_gets_its_own_identity_where_it_runs(
    service: CertificateService,
    metrics: Metrics,
    waypoint: WaypointKey,
    identity: SpiffeId,
    node: str,
    reason: str | None,
) -> None:
    caller = Caller(node, "s", waypoint=waypoint)
    admitted = AdmittedCall(caller, caller.tenant, "10.0.0.1:40000")
    asked = service.create(request(str(identity)), admitted, Call())
    if reason is None:
        assert pb.IstioCertificateResponse.FromString(asyncio.run(asked)).cert_chain
        return
    with pytest.raises(Aborted):
        asyncio.run(asked)
    counted = {"result": "refused", "reason": reason}
    assert metrics.registry.get_sample_value("tulle_control_csr_total", counted) == 1
