"""References of routes to parents and backends, with the API's defaults filled in."""

from __future__ import annotations

from control.model.route import NO_CHANGE, HeaderChange
from control.server.sources.gateways import required
from control.server.sources.reader import Reader
from control.server.sources.route_specs import GATEWAY_GROUP, BackendRef, ParentRef, TargetRef

WEIGHT_MAX = 1_000_000  # as the CRD


def read_parent(parent: Reader, namespace: str) -> ParentRef:
    """A Gateway, unless it says otherwise."""
    parent.only("group", "kind", "namespace", "name", "sectionName", "port")
    ref = _ref(parent, namespace, GATEWAY_GROUP, "Gateway")
    return ParentRef(ref, parent.text("sectionName"), parent.port("port") or 0)


def read_backend(
    backend: Reader,
    namespace: str,
    *,
    request_headers: HeaderChange = NO_CHANGE,
    response_headers: HeaderChange = NO_CHANGE,
    refusal: str = "",
) -> BackendRef:
    """A Service, unless it says otherwise. Its filters are the caller's to read."""
    backend.only("group", "kind", "namespace", "name", "port", "weight", "filters")
    weight = backend.number("weight")
    if weight is not None and not 0 <= weight <= WEIGHT_MAX:
        raise backend.invalid("weight", f"{weight} is not between 0 and {WEIGHT_MAX}")
    ref = _ref(backend, namespace, "", "Service")
    port = backend.port("port") or 0
    if (ref.group, ref.kind) == ("", "Service") and not port:
        raise backend.invalid("port", "a Service needs one")
    return BackendRef(
        ref, port, 1 if weight is None else weight, request_headers, response_headers, refusal
    )


def _ref(found: Reader, namespace: str, group: str, kind: str) -> TargetRef:
    """An empty group that is written down is the core group."""
    return TargetRef(
        found.text("group", group),
        found.text("kind") or kind,
        found.text("namespace") or namespace,
        required(found, "name"),
    )
