"""Workloads and services: what is left out has a default, and names are made in one way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model import workload as model
from control.model.identity import SpiffeId
from control.model.workload import NamespacedHostname, Service, Workload
from control.wire import workload_pb2 as pb

POD = Workload(uid="u", namespace="shop", service_account="web")


def test_an_identity_is_made_once_for_all_who_share_it() -> None:
    assert POD.identity == SpiffeId("cluster.local", "shop", "web")
    assert replace(POD, uid="other").identity is POD.identity
    assert replace(POD, trust_domain="td").identity == SpiffeId("td", "shop", "web")


def test_a_workload_that_says_nothing_is_an_ordinary_pod() -> None:
    bare = Workload(uid="u")
    assert bare.identity == SpiffeId("cluster.local", "", "default")
    assert bare.tunnel_protocol is model.TunnelProtocol.NONE
    assert (bare.capacity, bare.cluster_id) == (1, "Kubernetes")
    assert dict(bare.services) == {}
    with pytest.raises(TypeError):
        bare.services["x"] = ()  # type: ignore[index]  # nobody may add to it


def test_a_service_is_known_by_namespace_and_hostname() -> None:
    service = Service("web", "shop", "web.shop.svc.cluster.local")
    assert service.key == "shop/web.shop.svc.cluster.local"
    assert str(NamespacedHostname("shop", service.hostname)) == service.key


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (model.TunnelProtocol, pb.TunnelProtocol),
        (model.WorkloadType, pb.WorkloadType),
        (model.WorkloadStatus, pb.WorkloadStatus),
        (model.NetworkMode, pb.NetworkMode),
        (model.Scope, pb.LoadBalancing.Scope),
        (model.BalancingMode, pb.LoadBalancing.Mode),
        (model.HealthPolicy, pb.LoadBalancing.HealthPolicy),
        (model.IpFamilies, pb.IPFamilies),
        (model.AppProtocol, pb.AppProtocol),
    ],
)
def test_numbers_are_those_of_the_wire(ours: type, theirs: object) -> None:
    """`convert` passes them on as they are."""
    numbers = dict(theirs.items())  # type: ignore[attr-defined]  # a protobuf enum
    assert [each.value for each in ours] == sorted(numbers.values())[: len(list(ours))]  # type: ignore[var-annotated]
