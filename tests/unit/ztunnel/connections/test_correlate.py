"""Headers of a CONNECT: ours, and the few of a peer's that we believe."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_endpoint
from control.model.workload import Locality, Service, Workload, WorkloadType
from ztunnel.connections.correlate import (
    baggage,
    forwarded_by,
    forwarded_host,
    request_fields,
    single_request_fields,
)

POD = Workload(
    uid="u",
    name="web-1",
    namespace="demo",
    workload_name="web",
    canonical_name="web",
    canonical_revision="v2",
    locality=Locality("north", "north-1"),
)
PEER = parse_endpoint("10.0.0.5:40000")


def test_headers_of_a_request_through_a_service() -> None:
    service = Service("web", "demo", "web.demo.svc.cluster.local")
    client = parse_endpoint("10.0.0.5:1234")
    headers = dict(
        request_fields(POD)
        + single_request_fields(client, forwarded_host(service), random.Random(1))
    )
    assert headers["forwarded"] == 'for="10.0.0.5:1234";host=web.demo.svc.cluster.local'
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", headers["traceparent"])
    assert headers["baggage"] == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=web,"
        "service.name=web,service.version=v2,cloud.region=north,cloud.availability_zone=north-1"
    )


def test_ipv6_clients_are_bracketed() -> None:
    headers = dict(single_request_fields(parse_endpoint("[fd00::5]:1234"), "", random.Random(1)))
    assert headers["forwarded"] == 'for="[fd00::5]:1234"'


def test_baggage_follows_a_changed_workload() -> None:
    changed = Workload(uid="u", namespace="demo", workload_type=WorkloadType.JOB)
    assert "version=v2" in baggage(POD)
    assert baggage(changed) == "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo"


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ('for="10.0.0.5:1234"', "10.0.0.5:1234"),
        ('for="10.0.0.5:1234";host=web', "10.0.0.5:1234"),
        ('for="10.0.0.6:1234"', "10.0.0.5:40000"),  # not where the tunnel comes from
        ("for=10.0.0.5:1234", "10.0.0.5:40000"),
        ('for="10.0.0.5"', "10.0.0.5:40000"),
        ('for="10.0.0.5:99999"', "10.0.0.5:40000"),
        ('for="10.0.0.5:123456"', "10.0.0.5:40000"),
        ('for="10.0.0.5:0"', "10.0.0.5:40000"),
        ('for="10.0.0.5:+12"', "10.0.0.5:40000"),
        ('for="10.0.0.5:1234', "10.0.0.5:40000"),
        ('for="10.0.0.5', "10.0.0.5:40000"),
        ("", "10.0.0.5:40000"),
    ],
)
def test_only_the_port_of_the_tunnels_own_peer_is_believed(said: str, client: str) -> None:
    found, _ = forwarded_by([("forwarded", said)], PEER, "10.0.0.5")
    assert found == parse_endpoint(client)


def test_an_ipv6_peer_is_recognised() -> None:
    peer = parse_endpoint("[fd00::5]:40000")
    said = [("forwarded", 'for="[fd00::5]:1234"')]
    found, _ = forwarded_by(said, peer, "[fd00::5]")
    assert found == parse_endpoint("[fd00::5]:1234")


@given(st.text(max_size=60))
def test_any_header_gives_the_peers_address(said: str) -> None:
    found, _ = forwarded_by([("forwarded", said)], PEER, "10.0.0.5")
    assert found.address == PEER.address


@pytest.mark.parametrize(
    ("headers", "service"),
    [
        ([], None),
        ([("baggage", "a=b")], None),
        ([("forwarded", 'for="10.0.0.5:1234"')], ""),
        ([("forwarded", 'for="10.0.0.5:1234";host=web.demo')], "web.demo"),
        ([("forwarded", 'for="10.0.0.5:1234";host="web.demo"')], "web.demo"),
        ([("forwarded", 'for="10.0.0.9:1";host=web.demo')], "web.demo"),
        ([("forwarded", 'for="10.0.0.5:1234";proto=http')], ""),
        ([("forwarded", "host=web.demo")], ""),
        ([("forwarded", "")], ""),
        ([("forwarded", 'for="10.0.0.5:1234";host=')], ""),
    ],
)
def test_the_service_that_a_client_says_it_dialled(
    headers: list[tuple[str, str]], service: str | None
) -> None:
    assert forwarded_by(headers, PEER, "10.0.0.5")[1] == service


@given(st.text())
def test_any_word_of_a_client_is_read_back(hostname: str) -> None:
    word = hostname.strip('"')
    client = parse_endpoint("10.0.0.5:1234")
    web = Service("web", "demo", word)
    headers = list(single_request_fields(client, forwarded_host(web), random.Random(1)))
    assert forwarded_by(headers, PEER, "10.0.0.5") == (client, word)
