"""Values ↔ messages: nothing is lost, defaults are left out, nonsense is a WireError."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model import workload as model
from control.model.address import canonical, parse_address
from control.wire import convert, workload_pb2

NAMES = st.text("abc", max_size=3)
ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
PORTS = st.lists(
    st.builds(
        model.Port, st.integers(1, 65535), st.integers(0, 65535), st.sampled_from(model.AppProtocol)
    ),
    max_size=2,
).map(tuple)
VIPS = st.builds(model.NetworkAddress, NAMES, ADDRESSES.map(canonical), st.none() | st.just(24))
GATEWAYS = st.none() | st.builds(
    model.GatewayAddress,
    st.builds(model.NamespacedHostname, NAMES, NAMES) | VIPS,
    st.integers(0, 65535),
)
WORKLOADS = st.builds(
    model.Workload,
    uid=st.text("u", min_size=1, max_size=3),
    addresses=st.lists(ADDRESSES.map(canonical), max_size=2).map(tuple),
    trust_domain=st.sampled_from(["cluster.local", "td"]),
    service_account=st.sampled_from(["default", "web"]),
    waypoint=GATEWAYS,
    network_gateway=GATEWAYS,
    tunnel_protocol=st.sampled_from(model.TunnelProtocol),
    workload_type=st.sampled_from(model.WorkloadType),
    status=st.sampled_from(model.WorkloadStatus),
    network_mode=st.sampled_from(model.NetworkMode),
    application_tunnel=st.none() | st.builds(model.ApplicationTunnel, st.booleans()),
    authorization_policies=st.lists(NAMES, max_size=2).map(tuple),
    services=st.dictionaries(NAMES, PORTS, max_size=2).map(MappingProxyType),
    locality=st.builds(model.Locality, NAMES, NAMES, NAMES),
    capacity=st.integers(0, 9),
)
SERVICES = st.builds(
    model.Service,
    name=NAMES,
    namespace=st.just("ns"),
    hostname=st.just("h"),
    addresses=st.lists(VIPS, max_size=2).map(tuple),
    ports=PORTS,
    subject_alt_names=st.lists(NAMES, max_size=2).map(tuple),
    waypoint=GATEWAYS,
    load_balancing=st.none()
    | st.builds(
        model.LoadBalancing,
        st.lists(st.sampled_from(model.Scope), max_size=3).map(tuple),
        st.sampled_from(model.BalancingMode),
        st.sampled_from(model.HealthPolicy),
    ),
    ip_families=st.sampled_from(model.IpFamilies),
    canonical=st.booleans(),
    visibility=st.sampled_from(model.Visibility),
)


@settings(max_examples=30)
@given(WORKLOADS | SERVICES)
def test_an_address_survives_the_wire(value: Any) -> None:
    data = convert.resource_to_wire(value).SerializeToString()
    assert convert.resource_from_wire(workload_pb2.Address.FromString(data)) == value


def test_defaults_are_filled_in_and_left_out_again() -> None:
    message = workload_pb2.Workload(uid="u")
    value = convert.workload_from_wire(message)
    assert (value.trust_domain, value.service_account, value.cluster_id, value.capacity) == (
        "cluster.local",
        "default",
        "Kubernetes",
        1,
    )
    assert convert.workload_to_wire(value).trust_domain == ""
    mapped = workload_pb2.Workload(uid="u", addresses=[bytes(10) + b"\xff\xff\x0a\0\0\1"])
    assert convert.workload_from_wire(mapped).addresses == (parse_address("10.0.0.1"),)


def test_an_enum_value_from_the_future_reads_as_the_default() -> None:
    message = workload_pb2.Service(namespace="n", hostname="h")
    message.visibility = 7  # type: ignore[assignment]  # on purpose
    assert convert.service_from_wire(message).visibility is model.Visibility.PUBLIC


@pytest.mark.parametrize(
    "message",
    [
        workload_pb2.Address(),
        workload_pb2.Address(workload={}),
        workload_pb2.Address(workload={"uid": "u", "addresses": [b"123"]}),
        workload_pb2.Address(workload={"uid": "u", "tunnel_protocol": 2}),
        workload_pb2.Address(workload={"uid": "u", "waypoint": {}}),
        workload_pb2.Address(service={"namespace": "n"}),
        workload_pb2.Address(
            service={"namespace": "n", "hostname": "h", "ports": [{"service_port": 65536}]}
        ),
        workload_pb2.Address(
            service={
                "namespace": "n",
                "hostname": "h",
                "addresses": [{"address": b"1234", "length": 33}],
            }
        ),
    ],
)
def test_what_cannot_be_understood_is_a_wire_error(message: workload_pb2.Address) -> None:
    with pytest.raises(WireError):
        convert.resource_from_wire(message)
