from __future__ import annotations

import json

from control.server.envoy.descriptors import decode, encode
from control.wire.envoy_bootstrap import ADS_CLUSTER, SDS_CLUSTER, Bootstrap, bootstrap

ASKED = Bootstrap("waypoint~shop~w~pod", "w.shop", "/x/ads", "/x/sds", "/x/admin")


def test_it_names_its_sockets_and_nothing_else() -> None:
    made = bootstrap(ASKED)
    clusters = made["static_resources"]["clusters"]
    pipes = {
        each["name"]: each["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"][
            "address"
        ]["pipe"]["path"]
        for each in clusters
    }
    assert pipes == {ADS_CLUSTER: "/x/ads", SDS_CLUSTER: "/x/sds"}
    assert made["admin"]["address"]["pipe"] == {"path": "/x/admin", "mode": 0o600}
    assert "socket_address" not in json.dumps(made)


def test_half_closed_streams_stay_off() -> None:
    (layer,) = bootstrap(ASKED)["layered_runtime"]["layers"]
    key = "envoy.reloadable_features.allow_multiplexed_upstream_half_close"
    assert layer["static_layer"][key] is False


def test_memory_and_connections_have_bounds() -> None:
    monitors = bootstrap(ASKED)["overload_manager"]["resource_monitors"]
    values = [each["typed_config"] for each in monitors]
    assert values[0]["max_heap_size_bytes"] == ASKED.heap_bytes_max
    assert values[1]["max_active_downstream_connections"] == ASKED.connections_max


def test_it_has_envoys_form() -> None:
    kind = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap"
    assert decode(kind, encode(kind, bootstrap(ASKED)))["node"]["id"] == ASKED.node_id
