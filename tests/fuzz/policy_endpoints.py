"""Endpoints of services in the policy model: who is one, and at which port.

Where a service has slices they say it; otherwise the selector does. A slice that names a pod of its
own namespace means it. An address means the pod that has it: among several the first by namespace
and name, as none of these objects has an age. Shares no code with the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.fuzz.policy_contents import Objects, PodOf, canonical
from tests.fuzz.policy_form import Tree
from tests.fuzz.policy_found import DEFAULT_NAMESPACE


def ports_by_slices(now: Objects, service: Tree, pod: PodOf) -> Mapping[int, int] | None:
    """Ports of the service and those of the pod. None if the pod is no endpoint."""
    found: dict[int, int] | None = None
    for ports, _ in _members(now, service, pod):
        found = found or {}
        for each in _tcp(service["spec"].get("ports")):
            number = ports.get(each.get("name") or "")
            if number is not None:
                found.setdefault(each["port"], number)
    return found


def slices_of(now: Objects, service: Tree) -> list[Tree]:
    """In the order of their names."""
    meta = service["metadata"]
    namespace = meta.get("namespace") or DEFAULT_NAMESPACE
    found = [
        each
        for each in now.slices
        if (each["metadata"].get("namespace") or DEFAULT_NAMESPACE) == namespace
        and (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == meta["name"]
    ]
    return sorted(found, key=lambda each: each["metadata"]["name"])


def _members(now: Objects, service: Tree, pod: PodOf) -> Iterator[tuple[dict[str, int], Tree]]:
    """Ports of each endpoint that is this pod: those that name it come first."""
    endpoints = [
        (_slice_ports(each), each, endpoint)
        for each in slices_of(now, service)
        for endpoint in each.get("endpoints") or []
        if _is_ready(endpoint)
    ]
    for ports, each, endpoint in endpoints:
        if _named(each, endpoint) == (pod.namespace, pod.name):
            yield ports, endpoint
    for address in dict.fromkeys(pod.addresses):
        if holder(now, address) != (pod.namespace, pod.name):
            continue
        for ports, each, endpoint in endpoints:
            addresses = {canonical(one) for one in endpoint.get("addresses") or []}
            if _named(each, endpoint) is None and address in addresses:
                yield ports, endpoint


def holder(now: Objects, address: Any) -> tuple[str, str]:
    return min(key for key, pod in now.pods.items() if address in pod.addresses)


def _named(one: Tree, endpoint: Tree) -> tuple[str, str] | None:
    target = endpoint.get("targetRef") or {}
    own = one["metadata"].get("namespace") or DEFAULT_NAMESPACE
    if target.get("kind") != "Pod" or (target.get("namespace") or own) != own:
        return None
    return own, target.get("name") or ""


def _is_ready(endpoint: Tree) -> bool:
    """No pod of these scenarios terminates, so there is no last resort."""
    ready = (endpoint.get("conditions") or {}).get("ready")
    return ready is None or bool(ready)


def _slice_ports(one: Tree) -> dict[str, int]:
    return {
        each.get("name") or "": each["port"]
        for each in _tcp(one.get("ports"))
        if each.get("port") is not None
    }


def _tcp(ports: Any) -> list[Tree]:
    return [each for each in ports or [] if (each.get("protocol") or "TCP") == "TCP"]
