"""Counters by Istio's labels: shared where labels are equal, bounded, and exported in one list."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from control.model.address import parse_endpoint
from control.model.workload import Locality, Workload
from tests.support.engine.meshes import pod, service, spiffe
from tests.support.engine.rows import every_row
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.counters import Counters, tcp_labels
from ztunnel.telemetry.departed import EXPIRE_S
from ztunnel.telemetry.parties import Memo, Parties, Reporter
from ztunnel.tenants.bounds import LABEL_SETS
from ztunnel.tenants.tenancy import Kind, Tenancy

OF_DEPLOYMENT: dict[str, Any] = {
    "workload_name": "client",
    "canonical_name": "shop-client",
    "canonical_revision": "v1",
    "cluster_id": "c1",
    "locality": Locality("r", "z"),
    "service_account": "client",
}
CLIENT = pod("client-1", "10.0.0.1", **OF_DEPLOYMENT)
SERVER = pod("server-1", "10.0.0.2", workload_name="server")


def parties(**fields: Any) -> Parties:
    return Parties(
        reporter=fields.pop("reporter", Reporter.SOURCE),
        source_address=parse_endpoint(fields.pop("source_address", "10.0.0.1:40000")),
        destination_address=parse_endpoint("10.0.0.2:15008"),
        **{"source": CLIENT, "destination": SERVER, **fields},
    )


def exported(counters: Counters) -> Counter[str]:
    return Counter({name: number for name, _, number in every_row(counters)})


def test_all_that_is_known_is_a_label_and_the_rest_says_so() -> None:
    labels = tcp_labels(
        parties(source_identity=spiffe("client"), destination_identity=spiffe("server"))
    )
    assert labels["connection_security_policy"] == "mutual_tls"
    assert labels["source_workload"] == "client"
    assert labels["source_canonical_service"] == labels["source_app"] == "shop-client"
    assert labels["source_principal"] == "spiffe://cluster.local/ns/shop/sa/client"
    assert (labels["source_region"], labels["source_zone"]) == ("r", "z")
    assert labels["destination_service"] == labels["destination_app"] == "unknown"
    assert "path" not in labels


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ({}, "unknown"),
        ({"source_identity": spiffe("client")}, "unknown"),
        (
            {"direct": True, "source_identity": spiffe("a"), "destination_identity": spiffe("b")},
            "none",
        ),
    ],
)
def test_only_tls_at_both_ends_is_mutual_tls(fields: dict[str, Any], policy: str) -> None:
    labels = tcp_labels(parties(**fields))
    assert labels["connection_security_policy"] == policy
    assert labels.get("path") == ("direct" if fields.get("direct") else None)


def test_a_service_is_named_by_the_client_that_asked_for_it() -> None:
    labels = tcp_labels(parties(service=service("web", "10.1.0.1")))
    assert labels["destination_service"] == "web.shop.svc.cluster.local"
    assert labels["destination_service_name"] == "web"
    assert labels["destination_service_namespace"] == "shop"


def other_pod(**fields: Any) -> Workload:
    return pod("client-2", "10.0.0.9", **{**OF_DEPLOYMENT, **fields})


def test_pods_of_one_deployment_share_their_counters() -> None:
    counters = Counters()
    one = counters.series(parties())
    assert counters.series(parties(source_address="10.0.0.1:40001")) is one
    assert counters.series(parties(source=other_pod())) is one


@pytest.mark.parametrize(
    "other",
    [
        {"reporter": Reporter.DESTINATION},
        {"destination": None},
        {"service": service("web", "10.1.0.1")},
        {"source_identity": spiffe("client")},
        {"direct": True},
        {"source": other_pod(canonical_revision="v2")},
        {"source": other_pod(service_account="x")},
    ],
)
def test_whatever_makes_another_label_makes_another_counter(other: dict[str, Any]) -> None:
    counters = Counters()
    assert counters.series(parties(**other)) is not counters.series(parties())


def test_a_memo_is_asked_first() -> None:
    counters, memo = Counters(), Memo()
    found = counters.series(parties(memo=memo))
    assert memo.series is found
    assert counters.series(parties(memo=memo)) is found
    assert counters.series(parties()) is found


def test_new_pairs_beyond_the_bound_are_counted_together() -> None:
    counters = Counters(label_sets_max=2)
    for number in range(2):
        counters.series(parties(source=pod(f"p{number}")))
    first = counters.series(parties(source=pod("late")))
    assert first is counters.series(parties(source=pod("later")))
    assert first.labels["source_workload"] == "other"
    assert (first.labels["reporter"], first.labels["request_protocol"]) == ("source", "tcp")
    other_side = counters.series(parties(reporter=Reporter.DESTINATION, source=pod("late")))
    assert other_side is not first, "what the sides report is not added up"
    assert counters.series(parties(source=pod("p0"))).labels["source_workload"] == "p0"
    assert exported(counters)["tulle_ztunnel_label_sets_refused_total"] == 3


def test_one_tenant_cannot_use_up_the_label_sets_of_the_others() -> None:
    counters = Counters(label_sets_max=100)
    greedy, other = (Tenancy(Kind.POD, name) for name in ("greedy", "other"))
    for number in range(200):
        counters.series(parties(source=pod(f"g{number}"), tenant=greedy))
    assert 0 < greedy.held[LABEL_SETS.number] <= 64
    assert counters.label_sets_refused == 200 - greedy.held[LABEL_SETS.number]
    found = counters.series(parties(source=pod("mine"), tenant=other))
    assert found.labels["source_workload"] == "mine"


def test_a_label_set_that_is_dropped_is_given_back() -> None:
    counters = Counters(label_sets_max=100, known=lambda name: "gone" not in name)
    tenant = Tenancy(Kind.POD, "one")
    counters.series(parties(source=pod("gone"), tenant=tenant)).opened += 1
    counters.series(parties(source=pod("gone"), tenant=tenant)).finished += 1
    counters.departed.gone(pod("gone").uid)
    for now_s in (0.0, EXPIRE_S):
        list(counters.departed.look(now_s, 10))
    assert tenant.idle


def test_everything_counted_is_exported_once() -> None:
    counters = Counters()
    series = counters.series(parties())
    series.opened, series.finished = 5, 2
    series.received_bytes, series.sent_bytes = 10, 20
    series.closed[Flag.CONNECT] = 1
    series.failed[Flag.DENY] = 2
    counters.refuse(Reason.POLICY)
    counters.refuse(Reason.POLICY)
    counters.count("dials")
    found = list(every_row(counters))
    labelled = {(name, labels.get("response_flags", "")): number for name, labels, number in found}
    assert len(labelled) == len(found)
    assert labelled == {
        ("istio_tcp_connections_opened_total", "-"): 5,
        ("istio_tcp_received_bytes_total", "-"): 10,
        ("istio_tcp_sent_bytes_total", "-"): 20,
        ("istio_tcp_connections_closed_total", "-"): 2,
        ("istio_tcp_connections_closed_total", "CONNECT"): 1,
        ("istio_tcp_connections_failed_total", "DENY"): 2,
        ("tulle_ztunnel_refusals_total", ""): 2,
        ("tulle_ztunnel_dials_total", ""): 1,
        ("tulle_ztunnel_label_sets_refused_total", ""): 0,
    }
