from __future__ import annotations

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.route import Backend, BackendEndpoint, Spoken
from control.model.workload import Locality
from control.server.envoy import clusters
from control.server.envoy.descriptors import decode
from control.server.envoy.names import HTTP_OPTIONS
from control.wire.types import CLUSTER_TYPE, ENDPOINT_TYPE

ALICE = SpiffeId("cluster.local", "shop", "alice")
FAR = Locality("r", "z", "s")


def backend(*endpoints: BackendEndpoint, spoken: Spoken = Spoken.HTTP1) -> Backend:
    return Backend("shop/a.b:80", "shop/a", spoken, endpoints)


def at(address: str, **more: object) -> BackendEndpoint:
    return BackendEndpoint(parse_address(address), 8080, **{"identity": ALICE, **more})  # type: ignore[arg-type]


def shown(*endpoints: BackendEndpoint) -> list[dict[str, object]]:
    found = decode(ENDPOINT_TYPE, clusters.endpoints(backend(*endpoints)))
    return [each for group in found.get("endpoints", []) for each in group["lb_endpoints"]]


def test_a_cluster_has_its_name_and_no_dots_in_its_counters() -> None:
    found = decode(CLUSTER_TYPE, clusters.cluster(backend()))
    assert found["name"] == "shop/a.b:80"
    assert found["alt_stat_name"] == "shop/a_b:80"
    assert found["type"] == "EDS"
    assert found["common_lb_config"]["healthy_panic_threshold"] == {}  # a value of 0


def test_each_language() -> None:
    for spoken, key in (
        (Spoken.HTTP1, "explicit_http_config"),
        (Spoken.HTTP2, "explicit_http_config"),
        (Spoken.ANY, "use_downstream_protocol_config"),
    ):
        found = decode(CLUSTER_TYPE, clusters.cluster(backend(spoken=spoken)))
        assert key in found["typed_extension_protocol_options"][HTTP_OPTIONS]
    found = decode(CLUSTER_TYPE, clusters.cluster(backend(spoken=Spoken.TCP)))
    assert "typed_extension_protocol_options" not in found


def test_an_endpoint_says_who_has_to_answer() -> None:
    (one,) = shown(at("10.0.0.1"))
    assert one["metadata"]["filter_metadata"] == {  # type: ignore[index]
        "envoy.filters.listener.original_dst": {"local": "10.0.0.1:8080"},
        "tulle": {"identity": "spiffe://cluster.local/ns/shop/sa/alice"},
    }


def test_who_takes_over_an_address_is_another_endpoint() -> None:
    one, other = shown(at("10.0.0.1"), at("10.0.0.1", identity=SpiffeId("d", "n", "bob")))
    assert one["endpoint"] != other["endpoint"]


def test_one_outside_the_mesh_is_dialled_as_it_is() -> None:
    (one,) = shown(at("fd00::1", identity=None))
    address = one["endpoint"]["address"]  # type: ignore[index]
    assert address == {"socket_address": {"address": "fd00::1", "port_value": 8080}}
    assert "metadata" not in one


def test_health_and_weights_that_envoy_takes() -> None:
    sick, heavy, weightless = shown(
        at("10.0.0.1", healthy=False), at("10.0.0.2", weight=1 << 40), at("10.0.0.3", weight=0)
    )
    assert sick["health_status"] == "UNHEALTHY"
    assert heavy["load_balancing_weight"] == clusters.WEIGHT_MAX
    assert weightless["load_balancing_weight"] == 1


def test_the_order_of_endpoints_is_nobodys_choice() -> None:
    several = [at("10.0.0.1"), at("10.0.0.2", locality=FAR), at("10.0.0.3"), at("fd00::1")]
    one, other = (clusters.endpoints(backend(*each)) for each in (several, list(reversed(several))))
    assert one == other
    found = decode(ENDPOINT_TYPE, one)["endpoints"]
    assert [len(each["lb_endpoints"]) for each in found] == [3, 1]
    assert found[1]["locality"] == {"region": "r", "zone": "z", "sub_zone": "s"}
