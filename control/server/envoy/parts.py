"""Parts that several of the constant listeners and clusters have, and their bounds."""

from __future__ import annotations

from control.server.envoy.names import ADS, ORIGINAL, Json, extension

STREAMS_MAX = 200  # in one tunnel, as in our ztunnels
STREAM_WINDOW_BYTES, TUNNEL_WINDOW_BYTES = 1 << 20, 4 << 20
BUFFER_BYTES = 64 * 1024  # a connection, each way
KEEPALIVE = {"interval": "10s", "timeout": "20s"}
CONNECT_TIMEOUT = "5s"
REQUEST_HEADERS_TIMEOUT = "10s"  # from their first byte to their last
# Backends bound themselves; these are inside the process.
_BOUNDED = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
NO_BOUND = {"thresholds": [dict.fromkeys(_BOUNDED, 1 << 30)]}
EVERYTHING = {"any": True}


def refusing(name: str, action: str) -> Json:
    """A place for rules, which ride on the routes. Where none do, it refuses everything."""
    all_of_them = {"principals": [EVERYTHING], "permissions": [EVERYTHING]}
    policies = {"no rules": all_of_them} if action == "DENY" else {}
    return extension(
        name,
        "extensions.filters.http.rbac.v3.RBAC",
        rules={"action": action, "policies": policies},
        shadow_rules_stat_prefix=f"{action.lower()}_",
    )


def scopes(name: str, header: str, copies: int) -> Json:
    """Routes by a header. Both connection managers hear of all scopes: keys of one part are for
    tunnels, of two (the same twice) for requests."""
    part = {"header_value_extractor": {"name": header, "element_separator": "", "index": 0}}
    return {
        "name": name,
        "rds_config_source": ADS,
        "scope_key_builder": {"fragments": [part] * copies},
        "scoped_rds": {"scoped_rds_config_source": ADS},
    }


def router() -> Json:
    """Without headers of its own: applications see what the client sent."""
    return extension(
        "envoy.filters.http.router",
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
    )


def original() -> Json:
    return extension(ORIGINAL, "extensions.filters.listener.original_dst.v3.OriginalDst")


def through_inside(metadata: tuple[str, ...]) -> Json:
    """Transport of connections that stay in the process, with these metadata of the endpoint."""
    raw = extension("tulle.raw", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return extension(
        "tulle.inside",
        "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        passthrough_metadata=[{"kind": {"host": {}}, "name": name} for name in metadata],
        transport_socket=raw,
    )
