"""Logs, counters and spans of a waypoint: what is written about a tunnel, a request, a connection.

Fields are named as in our ztunnels' log where they mean the same. Envoy leaves out of a JSON line
what has no value.
"""

from __future__ import annotations

from control.server.envoy.names import (
    FRONT,
    ORIGINAL,
    OWN,
    PEER,
    SERVICE,
    Json,
    any_of,
    extension,
    from_state,
)
from control.server.envoy.settings import ShapeSettings, Tracing

OTLP = "otlp"  # the cluster of spans
OTLP_TIMEOUT = "1s"

# Series of requests that a worker keeps for each metric; what is not used between two sweeps goes.
# One more is counted in Envoy's own overflow counter.
SERIES_MAX = 10_000

_DESTINATION = "%UPSTREAM_METADATA(tulle:identity)%"
_COMMON = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "src.identity": from_state(PEER),
    "dst.service": from_state(SERVICE),
    "dst.identity": _DESTINATION,
    "dst.addr": "%UPSTREAM_HOST%",
    "dst.hbone_addr": f"%UPSTREAM_METADATA({ORIGINAL}:local)%",
    "bytes_sent": "%BYTES_SENT%",
    "bytes_recv": "%BYTES_RECEIVED%",
    "duration": "%DURATION%ms",
    "flags": "%RESPONSE_FLAGS%",
    "error": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_TUNNEL = {
    "time": _COMMON["time"],
    "scope": "tunnel",
    "src.addr": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "src.identity": "%DOWNSTREAM_PEER_URI_SAN%",
    "dst.addr": "%REQ(:AUTHORITY)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "error": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "duration": "%DURATION%ms",
}
_REQUEST = {
    **_COMMON,
    "scope": "request",
    "src.addr": f"%FILTER_STATE({ORIGINAL}.remote_ip:PLAIN)%",
    "front": from_state(FRONT),
    "route": "%ROUTE_NAME%",
    "backend": "%UPSTREAM_CLUSTER_RAW%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "host": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS(SNAKE_STRING)%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "trace": "%TRACE_ID%",
    "dry_run.deny": "%DYNAMIC_METADATA(envoy.filters.http.rbac:deny_shadow_effective_policy_id)%",
    "dry_run.deny_result": "%DYNAMIC_METADATA(envoy.filters.http.rbac:deny_shadow_engine_result)%",
    "dry_run.allow": "%DYNAMIC_METADATA(envoy.filters.http.rbac:allow_shadow_engine_result)%",
}
_TCP = {
    **_COMMON,
    "scope": "tcp",
    "src.addr": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "front": from_state(FRONT),
    "backend": "%UPSTREAM_CLUSTER_RAW%",
}


def tunnel_log(settings: ShapeSettings) -> list[Json]:
    """Only refused tunnels: the others have lines of their requests or connections."""
    refused = {
        "status_code_filter": {
            "comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "none"}}
        }
    }
    return [_lines(_TUNNEL) | {"filter": refused}] if settings.access_log else []


def request_log(settings: ShapeSettings) -> list[Json]:
    return [*([_lines(_REQUEST)] if settings.access_log else []), _request_metrics()]


def tcp_log(settings: ShapeSettings) -> list[Json]:
    return [*([_lines(_TCP)] if settings.access_log else []), _connection_metrics()]


def _lines(fields: dict[str, str]) -> Json:
    return extension(
        "tulle.lines",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"json_format": fields, "omit_empty_values": True},
    )


def _tags(values: dict[str, str]) -> list[Json]:
    common = {
        "reporter": "waypoint",
        "source_principal": from_state(PEER),
        "destination_principal": _DESTINATION,
        "destination_service": from_state(SERVICE),
        "response_flags": "%RESPONSE_FLAGS%",
        "connection_security_policy": "mutual_tls",
    }
    return [{"name": name, "value_format": text} for name, text in (common | values).items()]


def _metrics(counters: list[Json], histograms: list[Json]) -> Json:
    bounds = {"max_counters": SERIES_MAX, "max_histograms": SERIES_MAX, "enable_eviction": True}
    return extension(
        "tulle.metrics",
        "extensions.access_loggers.stats.v3.Config",
        stats_scope={"prefix": "istio.", **bounds},
        counters=counters,
        histograms=histograms,
    )


def _request_metrics() -> Json:
    tags = _tags(
        {
            "request_protocol": "%PROTOCOL%",
            "response_code": "%RESPONSE_CODE%",
            "grpc_response_status": "%GRPC_STATUS_NUMBER%",
        }
    )
    few = [each for each in tags if each["name"] not in ("response_flags", "grpc_response_status")]
    return _metrics(
        [{"stat": {"name": "requests_total", "tags": tags}, "value_fixed": 1}],
        [
            {"stat": {"name": name, "tags": few}, "unit": unit, "value_format": value}
            for name, unit, value in (
                ("request_duration_milliseconds", "Milliseconds", "%DURATION%"),
                ("request_bytes", "Bytes", "%BYTES_RECEIVED%"),
                ("response_bytes", "Bytes", "%BYTES_SENT%"),
            )
        ],
    )


def _connection_metrics() -> Json:
    tags = _tags({"request_protocol": "tcp"})
    return _metrics(
        [
            {"stat": {"name": name, "tags": tags}, **value}
            for name, value in (
                ("tcp_connections_closed_total", {"value_fixed": 1}),
                ("tcp_sent_bytes_total", {"value_format": "%BYTES_SENT%"}),
                ("tcp_received_bytes_total", {"value_format": "%BYTES_RECEIVED%"}),
            )
        ],
        [],
    )


def tracing(tracing: Tracing | None, service: str) -> Json:
    """The `tracing` field of a connection manager; nothing if no spans are wanted."""
    if tracing is None:
        return {}
    uri = {
        "uri": f"http://{OTLP}{tracing.path}",
        "cluster": OTLP,
        "timeout": OTLP_TIMEOUT,
    }
    provider = any_of(
        "config.trace.v3.OpenTelemetryConfig", service_name=service, http_service={"http_uri": uri}
    )
    return {
        "tracing": {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
            "random_sampling": {"value": 100 * tracing.share},
            "overall_sampling": {"value": 100},
            "spawn_upstream_span": True,
            "custom_tags": [
                {"tag": "source.principal", "value": from_state(PEER)},
                {"tag": "destination.principal", "value": _DESTINATION},
            ],
        }
    }


def otlp_cluster(tracing: Tracing) -> Json:
    address = {"socket_address": {"address": tracing.address, "port_value": tracing.port}}
    return {
        "name": OTLP,
        "type": "STATIC",
        "connect_timeout": OTLP_TIMEOUT,
        "load_assignment": {
            "cluster_name": OTLP,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


CLIENT_CERTIFICATE = f"By={from_state(OWN)};URI={from_state(PEER)}"
