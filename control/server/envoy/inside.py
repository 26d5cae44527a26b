"""Listeners inside the process, between both ends: requests are judged and routed here."""

from __future__ import annotations

from control.server.envoy import telemetry
from control.server.envoy.names import (
    CORS,
    FRONT,
    FRONT_HEADER,
    IN_HTTP,
    IN_TCP,
    NOWHERE,
    REQUEST_ALLOW,
    REQUEST_DENY,
    Json,
    extension,
    from_state,
)
from control.server.envoy.parts import (
    BUFFER_BYTES,
    CONNECT_TIMEOUT,
    NO_BOUND,
    REQUEST_HEADERS_TIMEOUT,
    STREAM_WINDOW_BYTES,
    STREAMS_MAX,
    TUNNEL_WINDOW_BYTES,
    original,
    refusing,
    router,
    scopes,
    through_inside,
)
from control.server.envoy.settings import ShapeSettings
from control.server.envoy.telemetry import CLIENT_CERTIFICATE

KEEP_ALIVE_IDLE = "3600s"
HEADERS_MAX, HEADERS_KIB_MAX = 100, 60
# Headers by which a client would steer Envoy, or fake what it writes.
_STEERING = (
    FRONT_HEADER,
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
)


def in_http(service: str, settings: ShapeSettings) -> Json:
    """`service`: the waypoint, as spans name it."""
    return _inside(IN_HTTP, _request_manager(service, settings))


def in_tcp(settings: ShapeSettings) -> Json:
    return _inside(IN_TCP, _tcp_proxy(settings))


def _inside(name: str, last: Json) -> Json:
    """A listener that takes the client's addresses from the tunnel."""
    return {
        "name": name,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "listener_filters": [original()],
        "filter_chains": [{"filters": [last]}],
    }


def _request_manager(service: str, settings: ShapeSettings) -> Json:
    filters = [
        _client_certificate(),
        refusing(REQUEST_DENY, "DENY"),
        refusing(REQUEST_ALLOW, "ALLOW"),
        extension(CORS, "extensions.filters.http.cors.v3.Cors"),
        router(),
    ]
    return extension(
        "tulle.requests",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=IN_HTTP,
        codec_type="AUTO",
        skip_xff_append=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_header_transformation="PASS_THROUGH",
        max_request_headers_kb=HEADERS_KIB_MAX,
        common_http_protocol_options={
            "idle_timeout": KEEP_ALIVE_IDLE,
            "max_headers_count": HEADERS_MAX,
            "headers_with_underscores_action": "ALLOW",
        },
        http2_protocol_options={
            "max_concurrent_streams": STREAMS_MAX,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": TUNNEL_WINDOW_BYTES,
        },
        stream_idle_timeout="0s",
        request_headers_timeout=REQUEST_HEADERS_TIMEOUT,
        upgrade_configs=[{"upgrade_type": "websocket"}],
        early_header_mutation_extensions=[_steering()],
        scoped_routes=scopes("requests", FRONT_HEADER, copies=2),
        http_filters=filters,
        access_log=telemetry.request_log(settings),
        **telemetry.tracing(settings.tracing, service),
    )


def _steering() -> Json:
    """Before the routes are looked up: the front's name, and no word of the client's to Envoy."""
    front = {
        "header": {"key": FRONT_HEADER, "value": from_state(FRONT)},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return extension(
        "tulle.steering",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[*({"remove": each} for each in _STEERING), {"append": front}],
    )


def _client_certificate() -> Json:
    """The identities of the tunnel, for the application; whatever the client says of them goes."""
    name = "x-forwarded-client-cert"
    ours = {
        "header": {"key": name, "value": CLIENT_CERTIFICATE},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return extension(
        "tulle.client",
        "extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [{"append": ours}]},
    )


def _tcp_proxy(settings: ShapeSettings) -> Json:
    """The cluster comes with the connection."""
    return extension(
        "tulle.connections",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=IN_TCP,
        cluster=NOWHERE,
        idle_timeout="0s",
        access_log=telemetry.tcp_log(settings),
    )


def into(listener: str) -> Json:
    to = {"envoy_internal_address": {"server_listener_name": listener}}
    return {
        "name": listener,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "circuit_breakers": NO_BOUND,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "transport_socket": through_inside(()),
        "load_assignment": {
            "cluster_name": listener,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": to}}]}],
        },
    }
