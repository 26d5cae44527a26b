"""The bootstrap of a waypoint's Envoy: where it hears the rest. Contract between the process beside
Envoy, which serves both sockets, and the resources of the control plane, which name the clusters.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ADS_CLUSTER, SDS_CLUSTER = "xds-grpc", "sds"
CERTIFICATE_SECRET, ROOTS_SECRET = "default", "ROOTCA"

_TYPE = "type.googleapis.com/envoy"
_GIB = 1 << 30
KEEPALIVE = {"interval": "30s", "timeout": "10s"}
EVICTION_INTERVAL = "600s"  # series of metrics that nobody used for so long go
REGEX_SIZE_MAX = 100_000
# By itself Envoy would try again after half a minute, once the control plane has been away.
_ADS = {
    "cluster_name": ADS_CLUSTER,
    "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "10s"}},
}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """`node_id`: `waypoint~NAMESPACE~NAME~POD`. Sockets are paths of Unix sockets."""

    node_id: str
    cluster: str
    ads_socket: str
    sds_socket: str
    admin_socket: str
    heap_bytes_max: int = _GIB
    connections_max: int = 50_000  # from ztunnels, tunnels each


def bootstrap(asked: Bootstrap) -> dict[str, Any]:
    """Envoy's `--config-path` content, for JSON."""
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": asked.node_id, "cluster": asked.cluster},
        "admin": {"address": {"pipe": {"path": asked.admin_socket, "mode": 0o600}}},
        "bootstrap_extensions": [
            _extension(
                "envoy.bootstrap.internal_listener",
                "extensions.bootstrap.internal_listener.v3.InternalListener",
            )
        ],
        "stats_eviction_interval": EVICTION_INTERVAL,
        # Counters of a cluster come with its first connection: many are never used.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "layered_runtime": {"layers": [{"name": "tulle", "static_layer": _RUNTIME}]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": _ADS}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                _process(ADS_CLUSTER, asked.ads_socket),
                _process(SDS_CLUSTER, asked.sds_socket),
            ]
        },
        "overload_manager": _overload(asked),
    }


_RUNTIME = {
    # Half-closed streams on shared connections: with it on, Envoy 1.40 keeps finished inner
    # connections and gives one to the next tunnel, which then hangs.
    "envoy.reloadable_features.allow_multiplexed_upstream_half_close": False,
    # Envoy's own bound of a regular expression is 100 instructions, [a-z]{1,40} already. Ours is
    # the control plane's (control/kit/re2.py), which says so to whoever wrote it.
    "re2.max_program_size.error_level": REGEX_SIZE_MAX,
    "re2.max_program_size.warn_level": REGEX_SIZE_MAX,
}


def _extension(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{kind}", **fields}}


def _process(name: str, path: str) -> dict[str, Any]:
    """HTTP/2 to the process beside Envoy."""
    options = {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": KEEPALIVE}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _overload(asked: Bootstrap) -> dict[str, Any]:
    heap, connections = "envoy.resource_monitors.fixed_heap", "global_downstream_max_connections"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            _extension(
                heap,
                "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=asked.heap_bytes_max,
            ),
            _extension(
                f"envoy.resource_monitors.{connections}",
                "extensions.resource_monitors.downstream_connections.v3"
                ".DownstreamConnectionsConfig",
                max_active_downstream_connections=asked.connections_max,
            ),
        ],
        "actions": [
            _action("envoy.overload_actions.shrink_heap", heap, 0.9),
            _action("envoy.overload_actions.stop_accepting_requests", heap, 0.95),
        ],
    }


def _action(name: str, monitor: str, at: float) -> dict[str, Any]:
    return {"name": name, "triggers": [{"name": monitor, "threshold": {"value": at}}]}
