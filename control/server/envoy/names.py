"""Names that several of our Envoy resources have to agree about, and the JSON forms of common
messages."""

from __future__ import annotations

from typing import Any

from control.model.address import CidrBlock, format_address

Json = dict[str, Any]  # a message in protobuf's JSON form

_TYPE = "type.googleapis.com/envoy"
ADS: Json = {"ads": {}, "resource_api_version": "V3"}

# Listeners and the clusters that lead into them. A backend's cluster has a slash in its name.
CONNECT_TERMINATE, CONNECT_ORIGINATE = "connect_terminate", "connect_originate"
IN_HTTP, IN_TCP = "in_http", "in_tcp"
NOWHERE = "none"  # a cluster that never exists

# Filter state of a connection, set when its tunnel is opened.
PEER, OWN, BAGGAGE = "tulle.peer", "tulle.own", "tulle.baggage"
SERVICE, FRONT = "tulle.service", "tulle.front"
TCP_CLUSTER = "envoy.tcp_proxy.cluster"
ORIGINAL = "envoy.filters.listener.original_dst"
REMOTE_IP, LOCAL_IP = f"{ORIGINAL}.remote_ip", f"{ORIGINAL}.local_ip"
UPSTREAM_SANS = "envoy.network.upstream_subject_alt_names"

METADATA = "tulle"  # metadata of endpoints and routes
FRONT_HEADER = "x-tulle-front"  # in front of the routes only: it picks them

# RBAC filters. Inside and outside differ: rules of the one are none for the other, which refuses.
CONNECT_DENY, CONNECT_ALLOW = "tulle.connect.deny", "tulle.connect.allow"
REQUEST_DENY, REQUEST_ALLOW = "tulle.request.deny", "tulle.request.allow"
CORS = "envoy.filters.http.cors"

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def any_of(kind: str, **fields: Any) -> Json:
    """A google.protobuf.Any of `envoy.<kind>`."""
    return {"@type": f"{_TYPE}.{kind}", **fields}


def extension(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": any_of(kind, **fields)}


def http_options(**fields: Any) -> Json:
    """`typed_extension_protocol_options` of a cluster."""
    return {HTTP_OPTIONS: any_of("extensions.upstreams.http.v3.HttpProtocolOptions", **fields)}


def inline(text: str) -> Json:
    return {"text_format_source": {"inline_string": text}}


def seconds(duration_s: float) -> str:
    """A duration, to the millisecond."""
    return f"{round(duration_s, 3):.3f}s"


def of_block(block: CidrBlock) -> Json:
    return {"address_prefix": format_address(block.address), "prefix_len": block.length}


def from_state(key: str) -> str:
    """Its place in a format string; `-` if there is none."""
    return f"%FILTER_STATE({key}:PLAIN)%"
