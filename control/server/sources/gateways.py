"""GatewayClass, Gateway and ReferenceGrant, with the defaults that their CRDs would fill in.

A Gateway of another class is somebody else's: of that one only the class is read.
"""

from __future__ import annotations

from collections.abc import Iterable

from control.server.sources.objects import Gateway, GatewayClass, Meta, ReferenceGrant
from control.server.sources.reader import Reader
from control.server.sources.route_specs import Expression, GatewayListener, GrantFrom, GrantTo

WAYPOINT_CLASSES = ("tulle-waypoint", "istio-waypoint")
LISTENERS_MAX = 64  # as the CRD
GRANTS_MAX = 16
EXPRESSIONS_MAX = 64

# Besides its listeners: where its pods run, and for whom else; a waypoint forwards by none of it.
_GATEWAY_SPEC = ("gatewayClassName", "listeners", "addresses", "infrastructure", "defaultScope")
_ALLOWED = ("All", "Same", "Selector", "None")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def read_gateway_class(document: Reader, meta: Meta) -> GatewayClass:
    return GatewayClass(meta, document.part("spec").text("controllerName"))


def read_gateway(document: Reader, meta: Meta) -> Gateway:
    spec = document.part("spec")
    class_name = spec.text("gatewayClassName")
    if class_name not in WAYPOINT_CLASSES:
        return Gateway(meta, class_name)
    spec.only(*_GATEWAY_SPEC)
    listeners = spec.children("listeners")
    if len(listeners) > LISTENERS_MAX:
        raise spec.invalid("listeners", f"more than {LISTENERS_MAX} entries")
    return Gateway(meta, class_name, tuple(map(_listener, listeners)))


def _listener(listener: Reader) -> GatewayListener:
    listener.only("name", "hostname", "port", "protocol", "tls", "allowedRoutes")
    routes = listener.part("allowedRoutes")
    routes.only("namespaces", "kinds")
    spaces = routes.part("namespaces")
    spaces.only("from", "selector")
    selector = spaces.part("selector")
    selector.only("matchLabels", "matchExpressions")
    return GatewayListener(
        name=required(listener, "name"),
        protocol=required(listener, "protocol"),
        port=required_port(listener, "port"),
        allowed=one_of(spaces, "from", _ALLOWED, "Same"),
        labels=selector.labels("matchLabels"),
        expressions=tuple(map(_expression, bounded(selector, "matchExpressions", EXPRESSIONS_MAX))),
    )


def _expression(found: Reader) -> Expression:
    found.only("key", "operator", "values")
    operator = one_of(found, "operator", _OPERATORS)
    return Expression(
        required(found, "key"), operator, tuple(text for text, _ in found.texts("values"))
    )


def read_reference_grant(document: Reader, meta: Meta) -> ReferenceGrant:
    spec = document.part("spec")
    spec.only("from", "to")
    froms, tos = bounded(spec, "from", GRANTS_MAX), bounded(spec, "to", GRANTS_MAX)
    for each, allowed in (
        (froms, ("group", "kind", "namespace")),
        (tos, ("group", "kind", "name")),
    ):
        for one in each:
            one.only(*allowed)
    return ReferenceGrant(
        meta,
        tuple(
            GrantFrom(each.text("group"), required(each, "kind"), required(each, "namespace"))
            for each in froms
        ),
        tuple(
            GrantTo(each.text("group"), required(each, "kind"), each.text("name")) for each in tos
        ),
    )


def required(reader: Reader, key: str) -> str:
    """A text that has to be there."""
    found = reader.text(key)
    if not found:
        raise reader.invalid(key, "is missing")
    return found


def required_port(reader: Reader, key: str) -> int:
    found = reader.port(key)
    if found is None:
        raise reader.invalid(key, "is missing")
    return found


def one_of(reader: Reader, key: str, words: Iterable[str], default: str = "") -> str:
    """One of these words."""
    found = reader.text(key) or default
    if found not in words:
        raise reader.invalid(key, f"{found!r} is none of {', '.join(words)}")
    return found


def bounded(reader: Reader, key: str, most: int) -> list[Reader]:
    """A list of mappings, of which there are not too many."""
    found = reader.children(key)
    if len(found) > most:
        raise reader.invalid(key, f"{len(found)} entries, more than {most}")
    return found
