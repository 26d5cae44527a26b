"""A waypoint's difference as differences of Envoy's resources: only those that it touches.

For each front: scopes of its authorities, and for HTTP a scope and a routing configuration. For
each backend: a cluster and its endpoints. Listeners and the clusters between them, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

from control.model.route import Front, Layer, WaypointDelta
from control.server.envoy import clusters, routes, shape, tunnels
from control.server.envoy.descriptors import encode
from control.server.envoy.names import Json
from control.server.envoy.settings import DEFAULTS, ShapeSettings
from control.wire.types import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SCOPE_TYPE,
)

Changes: TypeAlias = dict[str, dict[str, bytes | None]]  # type URL → name → bytes; None: gone
_Resource: TypeAlias = tuple[str, str, bytes | None]

SHAPES_KEPT_MAX = 64  # waypoints' constant parts; others are made again


def _nothing() -> dict[str, dict[str, bytes]]:
    return {each: {} for each in KINDS_OF_ENVOY}


@dataclass(slots=True)
class KnownResources:
    """One waypoint as its Envoys have been told about it. `of` keeps it up."""

    told: dict[str, dict[str, bytes]] = field(default_factory=_nothing)  # digests
    fronts: dict[str, Front] = field(default_factory=dict)
    # Fronts that want an authority; the first by name has it, for Envoy takes no key twice.
    wanted: dict[str, set[str]] = field(default_factory=dict)
    constant: tuple[_Resource, ...] = ()


def of(delta: WaypointDelta, known: KnownResources, settings: ShapeSettings = DEFAULTS) -> Changes:
    """Changes that `delta` makes to `known`, which has them from now on. Types are in the order in
    which Envoy has to hear of them; those that go, in the opposite one."""
    changes: Changes = {each: {} for each in KINDS_OF_ENVOY}
    if delta.is_gone:
        for type_url, names in known.told.items():
            changes[type_url] = dict.fromkeys(names)
        known.told, known.fronts, known.wanted, known.constant = _nothing(), {}, {}, ()
        return changes
    for type_url, name, data in _resources(delta, known, settings):
        told, digest = known.told[type_url], _digest(data)
        if told.get(name) == digest:
            continue
        changes[type_url][name] = data
        if digest is None:
            del told[name]
        else:
            told[name] = digest
    return changes


def _digest(data: bytes | None) -> bytes | None:
    return None if data is None else blake2b(data, digest_size=16).digest()


def _resources(
    delta: WaypointDelta, known: KnownResources, settings: ShapeSettings
) -> Iterator[_Resource]:
    constant = _constant(delta.account.trust_domain, str(delta.key), settings)
    if constant is not known.constant:
        known.constant = constant
        yield from constant
    for name, backend in delta.backends.items():
        yield CLUSTER_TYPE, name, None if backend is None else clusters.cluster(backend)
        yield ENDPOINT_TYPE, name, None if backend is None else clusters.endpoints(backend)
    claimed: dict[str, None] = {}
    for name, front in delta.fronts.items():
        claimed.update(dict.fromkeys(_claim(name, front, known)))
        yield from _requests(name, front)
    hosts: dict[str, bytes] = {}  # by front
    for authority in claimed:
        yield SCOPE_TYPE, tunnels.scope_name(authority), _tunnel(authority, known, hosts)


@lru_cache(SHAPES_KEPT_MAX)
def _constant(trust_domain: str, waypoint: str, settings: ShapeSettings) -> tuple[_Resource, ...]:
    made = {
        CLUSTER_TYPE: shape.clusters(trust_domain, settings),
        LISTENER_TYPE: shape.listeners(trust_domain, waypoint, settings),
    }
    return tuple(
        (type_url, name, encode(type_url, value))
        for type_url, values in made.items()
        for name, value in values.items()
    )


def _claim(name: str, front: Front | None, known: KnownResources) -> Iterator[str]:
    """Authorities that the front had or has; `known` has it from now on."""
    before = known.fronts.pop(name, None)
    for authority in tunnels.authorities(before) if before is not None else ():
        wanting = known.wanted[authority]
        wanting.discard(name)
        if not wanting:
            del known.wanted[authority]
        yield authority
    if front is None:
        return
    known.fronts[name] = front
    for authority in tunnels.authorities(front):
        known.wanted.setdefault(authority, set()).add(name)
        yield authority


def _requests(name: str, front: Front | None) -> Iterator[_Resource]:
    is_http = front is not None and front.layer is Layer.HTTP
    if front is None or not is_http:
        yield SCOPE_TYPE, routes.scope_name(name), None
        yield ROUTE_TYPE, name, None
        return
    yield SCOPE_TYPE, routes.scope_name(name), encode(SCOPE_TYPE, routes.scope(front))
    yield (
        ROUTE_TYPE,
        name,
        _or(ROUTE_TYPE, lambda: routes.configuration(front), lambda: routes.refusal(front)),
    )


def _tunnel(authority: str, known: KnownResources, hosts: dict[str, bytes]) -> bytes | None:
    wanting = known.wanted.get(authority)
    if not wanting:
        return None
    name = min(wanting)
    host = hosts.get(name)
    if host is None:
        front = known.fronts[name]
        host = hosts[name] = _or(tunnels.HOST_TYPE, lambda: tunnels.host(front), tunnels.refusal)
    return encode(SCOPE_TYPE, tunnels.scope(authority, host))


def _or(type_url: str, made: Callable[[], Json], refusal: Callable[[], Json]) -> bytes:
    """A front that cannot be told refuses; it takes no other with it."""
    try:
        return encode(type_url, made())
    except ValueError:
        return encode(type_url, refusal())
