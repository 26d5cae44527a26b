"""The tunnels that a waypoint takes: a scope for each authority by which a front is known.

A scope has its routes in it, two of them: one resource, no second question, and no other front's
is touched. An authority that is in no scope gets 404. A TCP front's policies decide here: later,
a server that speaks first would have greeted the client already.
"""

from __future__ import annotations

from control.model.address import host_text
from control.model.policy import Action
from control.model.route import Destination, Front, Layer
from control.server.envoy import policy
from control.server.envoy.names import (
    CONNECT_ALLOW,
    CONNECT_DENY,
    IN_HTTP,
    IN_TCP,
    METADATA,
    Json,
)

SHARES = 1_000_000  # a weight is a part of these
HOST_TYPE = "type.googleapis.com/envoy.config.route.v3.VirtualHost"

_HOST: Json = {"name": "tunnel", "domains": ["*"]}
_OPEN: Json = {CONNECT_DENY: policy.no_rules(), CONNECT_ALLOW: policy.no_rules()}


def authorities(front: Front) -> tuple[str, ...]:
    """All that clients may ask for, without doubles."""
    hosts = [host_text(each) for each in front.addresses]
    if front.hostname:
        hosts.append(front.hostname.lower())
    return tuple(dict.fromkeys(f"{host}:{front.port}" for host in hosts))


def host(front: Front) -> Json:
    """A VirtualHost with all that there is for one front, whatever the authority."""
    return {**_HOST, "typed_per_filter_config": _policies(front), "routes": _routes(front)}


def refusal() -> Json:
    """The same for a front that Envoy cannot be told about."""
    refused = {"match": {"connect_matcher": {}}, "direct_response": {"status": 503}}
    return {**_HOST, "typed_per_filter_config": _OPEN, "routes": [refused]}


def scope(authority: str, host: Json | bytes) -> Json:
    name = scope_name(authority)
    return {
        "name": name,
        "key": {"fragments": [{"string_key": authority}]},
        "route_configuration": {"name": name, "virtual_hosts": [host]},
    }


def scope_name(authority: str) -> str:
    return f"tunnel|{authority}"


def _policies(front: Front) -> Json:
    if front.layer is Layer.HTTP:  # the requests are judged
        return _OPEN
    return {
        CONNECT_DENY: policy.rules(front, Action.DENY),
        CONNECT_ALLOW: policy.rules(front, Action.ALLOW),
    }


def _routes(front: Front) -> list[Json]:
    if front.layer is Layer.HTTP:
        return [_tunnel(front, IN_HTTP, {}, "")]
    if front.destinations is None:
        return [_to(front, front.backend, {})]
    return _shares(front, [each for each in front.destinations if each.weight > 0])


def _shares(front: Front, destinations: list[Destination]) -> list[Json]:
    """Each takes what the ones before it left: Envoy draws one number for a tunnel."""
    total, so_far = sum(each.weight for each in destinations), 0
    routes = []
    for each in destinations[:-1]:
        so_far += each.weight
        share = {"numerator": round(SHARES * so_far / total), "denominator": "MILLION"}
        routes.append(_to(front, each.backend, {"runtime_fraction": {"default_value": share}}))
    return [*routes, _to(front, destinations[-1].backend if destinations else "", {})]


def _to(front: Front, backend: str, match: Json) -> Json:
    if not backend:
        return {"match": {"connect_matcher": {}, **match}, "direct_response": {"status": 503}}
    return _tunnel(front, IN_TCP, match, backend)


def _tunnel(front: Front, cluster: str, match: Json, backend: str) -> Json:
    facts = {"service": front.hostname or front.name, "front": front.name}
    if backend:
        facts["cluster"] = backend
    return {
        "match": {"connect_matcher": {}, **match},
        "metadata": {"filter_metadata": {METADATA: facts}},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    }
