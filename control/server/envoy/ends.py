"""The two ends of a waypoint's tunnels: those that clients open, and those that lead to pods."""

from __future__ import annotations

from control.model.workload import HBONE_PORT
from control.server.envoy import telemetry
from control.server.envoy.names import (
    BAGGAGE,
    CONNECT_ALLOW,
    CONNECT_DENY,
    CONNECT_ORIGINATE,
    CONNECT_TERMINATE,
    FRONT,
    LOCAL_IP,
    METADATA,
    ORIGINAL,
    OWN,
    PEER,
    REMOTE_IP,
    SERVICE,
    TCP_CLUSTER,
    UPSTREAM_SANS,
    Json,
    extension,
    from_state,
    http_options,
    inline,
)
from control.server.envoy.parts import (
    BUFFER_BYTES,
    CONNECT_TIMEOUT,
    EVERYTHING,
    KEEPALIVE,
    NO_BOUND,
    REQUEST_HEADERS_TIMEOUT,
    STREAM_WINDOW_BYTES,
    STREAMS_MAX,
    TUNNEL_WINDOW_BYTES,
    original,
    refusing,
    router,
    scopes,
)
from control.server.envoy.settings import ShapeSettings
from control.wire.envoy_bootstrap import CERTIFICATE_SECRET, ROOTS_SECRET, SDS_CLUSTER

TUNNEL_IDLE = "300s"  # towards pods, without a stream
HANDSHAKE_TIMEOUT = "10s"


def connect_terminate(trust_domain: str, settings: ShapeSettings) -> Json:
    socket = {"address": settings.address, "port_value": settings.port}
    if settings.address == "::":
        socket["ipv4_compat"] = True  # half of the addresses of a dual-stack waypoint are IPv4
    return {
        "name": CONNECT_TERMINATE,
        "address": {"socket_address": socket},
        "connection_balance_config": {"exact_balance": {}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [
            {
                "transport_socket": _tls(trust_domain, "Downstream"),
                "transport_socket_connect_timeout": HANDSHAKE_TIMEOUT,
                "filters": [_tunnel_manager(trust_domain, settings)],
            }
        ],
    }


def _tunnel_manager(trust_domain: str, settings: ShapeSettings) -> Json:
    filters = [
        extension(
            "tulle.connection",
            "extensions.filters.http.set_filter_state.v3.Config",
            on_request_headers=_connection_state(),
        ),
        _one_identity(trust_domain),
        refusing(CONNECT_DENY, "DENY"),
        refusing(CONNECT_ALLOW, "ALLOW"),
        router(),
    ]
    return extension(
        "tulle.tunnels",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=CONNECT_TERMINATE,
        codec_type="HTTP2",
        stream_idle_timeout="0s",  # its streams are connections
        request_headers_timeout=REQUEST_HEADERS_TIMEOUT,
        generate_request_id=False,
        skip_xff_append=True,
        http2_protocol_options={
            "allow_connect": True,
            "max_concurrent_streams": STREAMS_MAX,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": TUNNEL_WINDOW_BYTES,
            "connection_keepalive": KEEPALIVE,
        },
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        scoped_routes=scopes("tunnels", ":authority", copies=1),
        http_filters=filters,
        access_log=telemetry.tunnel_log(settings),
    )


def _connection_state() -> list[Json]:
    """Facts of the tunnel, for the connection in it. Those that are shared "once" are part of the
    key of inner connections (so `hashable_string`: with plain strings Envoy gives one client's
    connection to another)."""
    texts = "envoy.hashable_string"
    return [
        _state(LOCAL_IP, "%REQ(:AUTHORITY)%"),
        _state(REMOTE_IP, "%DOWNSTREAM_REMOTE_ADDRESS%"),
        _state(PEER, "%DOWNSTREAM_PEER_URI_SAN%", texts, "TRANSITIVE"),
        _state(OWN, "%DOWNSTREAM_LOCAL_URI_SAN%", texts),
        _state(BAGGAGE, "%REQ(baggage)%", texts, "TRANSITIVE"),
        _state(SERVICE, f"%METADATA(ROUTE:{METADATA}:service)%", texts),
        _state(FRONT, f"%METADATA(ROUTE:{METADATA}:front)%", texts),
        _state(TCP_CLUSTER, f"%METADATA(ROUTE:{METADATA}:cluster)%"),
    ]


def _state(key: str, value: str, factory: str = "", shared: str = "ONCE") -> Json:
    made = {
        "object_key": key,
        "format_string": inline(value),
        "shared_with_upstream": shared,
        "skip_if_empty": True,
    }
    return made | ({"factory_key": factory} if factory else {})


def _one_identity(trust_domain: str) -> Json:
    """Exactly one identity: two, which Envoy joins by a comma, would be neither to the policies."""
    wanted = {"prefix": f"spiffe://{trust_domain}/ns/"}
    one = [{"filter_state": {"key": PEER, "string_match": wanted}}]
    one.append({"not_id": {"filter_state": {"key": PEER, "string_match": {"contains": ","}}}})
    rules = {"one": {"principals": [{"and_ids": {"ids": one}}], "permissions": [EVERYTHING]}}
    return extension(
        "tulle.identity",
        "extensions.filters.http.rbac.v3.RBAC",
        rules={"action": "ALLOW", "policies": rules},
    )


def connect_originate() -> Json:
    """To whom a connection may go is the endpoint's word. Without it the name wanted is `-`, which
    nobody has."""
    wanted = {
        "object_key": UPSTREAM_SANS,
        "format_string": inline(f"%DYNAMIC_METADATA({METADATA}:identity)%"),
        "shared_with_upstream": "ONCE",
    }
    baggage = {
        "header": {"key": "baggage", "value": from_state(BAGGAGE)},
        "keep_empty_value": False,
    }
    tunnel = {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%", "headers_to_add": [baggage]}
    filters = [
        extension(
            "tulle.wanted",
            "extensions.filters.network.set_filter_state.v3.Config",
            on_new_connection=[wanted],
        ),
        extension(
            "tulle.tunnel",
            "extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=CONNECT_ORIGINATE,
            cluster=CONNECT_ORIGINATE,
            idle_timeout="0s",
            tunneling_config=tunnel,
        ),
    ]
    return {
        "name": CONNECT_ORIGINATE,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "use_original_dst": False,
        "listener_filters": [original()],
        "filter_chains": [{"filters": filters}],
    }


def tunnels_out(trust_domain: str) -> Json:
    """Tunnels to pods, by address and identity."""
    options = {
        "allow_connect": True,
        "max_concurrent_streams": STREAMS_MAX,
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": TUNNEL_WINDOW_BYTES,
        "connection_keepalive": KEEPALIVE,
    }
    return {
        "name": CONNECT_ORIGINATE,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": CONNECT_TIMEOUT,
        "cleanup_interval": "60s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "original_dst_lb_config": {
            "upstream_port_override": HBONE_PORT,
            "metadata_key": {"key": ORIGINAL, "path": [{"key": "waypoint"}]},
        },
        "circuit_breakers": NO_BOUND,
        "typed_extension_protocol_options": http_options(
            common_http_protocol_options={"idle_timeout": TUNNEL_IDLE},
            explicit_http_config={"http2_protocol_options": options},
        ),
        "transport_socket": _tls(trust_domain, "Upstream"),
    }


def _tls(trust_domain: str, direction: str) -> Json:
    """TLS 1.3 with our certificate, for peers of the trust domain."""
    names = [{"san_type": "URI", "matcher": {"prefix": f"spiffe://{trust_domain}/"}}]
    common = {
        "alpn_protocols": ["h2"],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificate_sds_secret_configs": [_secret(CERTIFICATE_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": _secret(ROOTS_SECRET),
        },
    }
    more = {"require_client_certificate": True} if direction == "Downstream" else {}
    return extension(
        "tulle.tls",
        f"extensions.transport_sockets.tls.v3.{direction}TlsContext",
        common_tls_context=common,
        **more,
    )


def _secret(name: str) -> Json:
    """From the process beside Envoy, never from the control plane."""
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
        "set_node_on_first_message_only": True,
    }
    return {
        "name": name,
        "sds_config": {"api_config_source": source, "resource_api_version": "V3"},
    }
