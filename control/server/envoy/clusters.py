"""Backends as clusters and their endpoints."""

from __future__ import annotations

from functools import cache
from itertools import groupby

from control.model.address import host_text
from control.model.route import Backend, BackendEndpoint, Spoken
from control.model.workload import Locality
from control.server.envoy.descriptors import encode
from control.server.envoy.names import (
    ADS,
    CONNECT_ORIGINATE,
    METADATA,
    ORIGINAL,
    Json,
    http_options,
)
from control.server.envoy.parts import BUFFER_BYTES, CONNECT_TIMEOUT, through_inside
from control.wire.framing import frame
from control.wire.types import CLUSTER_TYPE, ENDPOINT_TYPE

# Per backend and worker of Envoy. What is over it is answered with 503 (overflow).
IN_FLIGHT_MAX = 65_536
RETRIES_IN_FLIGHT_MAX = 1024
SERVER_IDLE = "300s"  # connections to servers without a request
WEIGHT_MAX = 1 << 20

_NAME, _STAT_NAME = 1, 28  # fields of a Cluster


def cluster(backend: Backend) -> bytes:
    """The parts that differ stand behind those that do not: protobuf takes them as one message.
    Its name in counters has no dots, which end a label there."""
    shown = backend.name.replace(".", "_")
    return (
        _cluster_of(backend.spoken)
        + frame(_NAME, backend.name.encode())
        + frame(_STAT_NAME, shown.encode())
    )


@cache
def _cluster_of(spoken: Spoken) -> bytes:
    most = dict.fromkeys(("max_connections", "max_pending_requests"), IN_FLIGHT_MAX)
    bounds = most | {"max_requests": IN_FLIGHT_MAX, "max_retries": RETRIES_IN_FLIGHT_MAX}
    made: Json = {
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        # Below this part of healthy endpoints Envoy would take the others as well.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [bounds]},
        "transport_socket": through_inside((ORIGINAL, METADATA)),
    }
    if spoken is not Spoken.TCP:
        made["typed_extension_protocol_options"] = http_options(
            common_http_protocol_options={"idle_timeout": SERVER_IDLE}, **_PROTOCOLS[spoken]
        )
    return encode(CLUSTER_TYPE, made)


_PROTOCOLS: dict[Spoken, Json] = {
    Spoken.HTTP1: {"explicit_http_config": {"http_protocol_options": {}}},
    Spoken.HTTP2: {"explicit_http_config": {"http2_protocol_options": {}}},
    Spoken.ANY: {
        "use_downstream_protocol_config": {
            "http_protocol_options": {},
            "http2_protocol_options": {},
        }
    },
}


def endpoints(backend: Backend) -> bytes:
    """By locality, in an order that depends on nothing else."""

    def place(each: BackendEndpoint) -> tuple[str, str, str]:
        return (each.locality.region, each.locality.zone, each.locality.subzone)

    ordered = sorted(
        backend.endpoints,
        key=lambda each: (place(each), each.address, each.port, str(each.identity)),
    )
    groups = [
        _locality(members[0].locality) | {"lb_endpoints": [_endpoint(each) for each in members]}
        for members in (list(group) for _, group in groupby(ordered, place))
    ]
    return encode(ENDPOINT_TYPE, {"cluster_name": backend.name, "endpoints": groups})


def _locality(locality: Locality) -> Json:
    if locality == Locality():
        return {}
    shown = {
        "region": locality.region,
        "zone": locality.zone,
        "sub_zone": locality.subzone,
    }
    return {"locality": shown}


def _endpoint(endpoint: BackendEndpoint) -> Json:
    made: Json = {
        "health_status": "HEALTHY" if endpoint.healthy else "UNHEALTHY",
        "load_balancing_weight": min(max(endpoint.weight, 1), WEIGHT_MAX),
    }
    if endpoint.identity is None:
        host, port = host_text(endpoint.address).strip("[]"), endpoint.port
        to: Json = {"socket_address": {"address": host, "port_value": port}}
        return made | {"endpoint": {"address": to}}
    where = f"{host_text(endpoint.address)}:{endpoint.port}"
    # The identity is part of the id: connections to whoever had the address before are not its.
    to = {
        "envoy_internal_address": {
            "server_listener_name": CONNECT_ORIGINATE,
            "endpoint_id": f"{where} {endpoint.identity.principal}",
        }
    }
    metadata = {ORIGINAL: {"local": where}, METADATA: {"identity": str(endpoint.identity)}}
    return made | {"endpoint": {"address": to}, "metadata": {"filter_metadata": metadata}}
