"""Fronts of one service: each of its ports, as its waypoint serves it. Pure.

A port is HTTP if the service says so, or somebody has attached a route to it; else TCP. Nobody
looks at the first bytes: a client whose server speaks first would wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from control.model.address import Address
from control.model.http_policy import HttpPolicy
from control.model.route import Front, HttpRule, Layer
from control.model.workload import AppProtocol, Port, Service
from control.server.gateway.names import port_name
from control.server.gateway.parents import CONFLICTED, HTTP_PROTOCOLS, TOO_MANY
from control.server.gateway.precedence import Rank, age
from control.server.gateway.rules import RouteRules, in_order
from control.server.gateway.statuses import RouteVerdict
from control.server.sources.objects import Key, RouteObject
from control.server.sources.tcp_routes import TCP_ROUTE

RULES_MAX: Final = 1024  # at a front; the routes that were there first have room

_NO_ROOM: Final = RouteVerdict(False, TOO_MANY, "older routes have filled the service's table")
_CONFLICT: Final = RouteVerdict(False, CONFLICTED, "another route has the port's connections")


@dataclass(frozen=True, slots=True)
class AttachedRoute:
    """A route at one service, with the ports that it is for."""

    route: RouteObject
    made: RouteRules
    ports: frozenset[int]

    @property
    def is_tcp(self) -> bool:
        return self.route.meta.key.kind == TCP_ROUTE


@dataclass(frozen=True, slots=True)
class ServiceFronts:
    """`backends` are those that the fronts need. `left_out`: routes that did not come in, and
    why."""

    fronts: Mapping[str, Front]
    backends: frozenset[str]
    left_out: Mapping[Key, RouteVerdict]


def fronts_of(
    service: Service,
    routes: Iterable[AttachedRoute],
    policies: Callable[[Layer], tuple[HttpPolicy, ...]],
) -> ServiceFronts:
    """`policies`: those for the service, by layer."""
    fronts: dict[str, Front] = {}
    backends: set[str] = set()
    left_out: dict[Key, RouteVerdict] = {}
    by_age = sorted(routes, key=lambda each: (age(each.route.meta), each.route.meta.key))
    for port in service.ports:
        here = [each for each in by_age if port.service_port in each.ports]
        taken = _taken(here, left_out)
        front = _front(service, port, taken, policies)
        fronts[front.name] = front
        backends.update(name for each in taken for name in each.made.backends)
        if not taken:
            backends.add(front.backend)
    return ServiceFronts(fronts, frozenset(backends), left_out)


def _taken(routes: list[AttachedRoute], left_out: dict[Key, RouteVerdict]) -> list[AttachedRoute]:
    """Routes of one port that are in force: those of HTTP, or else the oldest of TCP."""
    of_http = [each for each in routes if not each.is_tcp]
    taken = _with_room(of_http) if of_http else routes[:1]
    for each in routes:
        if each not in taken:
            is_late = each.is_tcp or not of_http
            left_out[each.route.meta.key] = _CONFLICT if is_late else _NO_ROOM
    return taken


def layer_of(protocol: AppProtocol) -> Layer:
    """Layer of a port that nobody has a route for."""
    return Layer.HTTP if protocol in HTTP_PROTOCOLS else Layer.TCP


def _front(
    service: Service,
    port: Port,
    routes: list[AttachedRoute],
    policies: Callable[[Layer], tuple[HttpPolicy, ...]],
) -> Front:
    name = port_name(service, port.service_port)
    is_tcp = any(each.is_tcp for each in routes)
    layer = layer_of(port.app_protocol)
    if routes:
        layer = Layer.TCP if is_tcp else Layer.HTTP
    rules = in_order(_rules(routes)) if routes else None
    return Front(
        name=name,
        service=service.key,
        hostname=service.hostname,
        addresses=_addresses(service, port.service_port),
        port=port.service_port,
        layer=layer,
        backend=name,
        rules=None if is_tcp else rules,
        destinations=tuple(to for each in rules for to in each.destinations)
        if is_tcp and rules is not None
        else None,
        policies=policies(layer),
    )


def _addresses(service: Service, port: int) -> tuple[Address, ...]:
    """All that lead to this port, the outer ones too."""
    found = [each.address for each in service.addresses]
    found += [each.address for each in service.outer_addresses if port in each.ports]
    return tuple(dict.fromkeys(found))


def _with_room(routes: Sequence[AttachedRoute]) -> list[AttachedRoute]:
    taken, count = [], 0
    for each in routes:
        if count + len(each.made.rules) <= RULES_MAX:
            count += len(each.made.rules)
            taken.append(each)
    return taken


def _rules(routes: Iterable[AttachedRoute]) -> list[tuple[Rank, HttpRule]]:
    return [one for each in routes for one in each.made.rules]
