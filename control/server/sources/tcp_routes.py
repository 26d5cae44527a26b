"""TCPRoute: shares of a port's connections. Connections say nothing that could be matched."""

from __future__ import annotations

from control.server.sources.gateways import bounded
from control.server.sources.http_routes import BACKENDS_MAX, read_route, read_rule_backend
from control.server.sources.objects import Meta, RouteObject
from control.server.sources.reader import Reader
from control.server.sources.route_specs import RouteRule

TCP_ROUTE = "TCPRoute"


def read_tcp_route(document: Reader, meta: Meta) -> RouteObject:
    route = read_route(document, meta, _rule)
    spec = document.part("spec")
    if "hostnames" in spec:
        raise spec.invalid("hostnames", "a connection has none")
    if len(route.spec.rules) > 1:
        raise spec.invalid("rules", "only one could ever be taken")
    return route


def _rule(rule: Reader, namespace: str) -> RouteRule:
    rule.only("name", "backendRefs")
    backends = bounded(rule, "backendRefs", BACKENDS_MAX)
    for each in backends:
        if "filters" in each:
            raise each.invalid("filters", "a connection has nothing to change")
    return RouteRule(
        name=rule.text("name"),
        backends=tuple(read_rule_backend(each, namespace) for each in backends),
    )
