"""Labels about waypoints, and objects that are one. Pure.

A waypoint is a Gateway of one of our classes that listens for HBONE on port 15008. Its pods bear
its name in a label, as the Gateway API says, and run as the service account of that name.
"""

from __future__ import annotations

from typing import Final

from control.model.identity import SpiffeId
from control.model.route import WaypointKey
from control.model.workload import HBONE_PORT
from control.server.compile.settings import Settings
from control.server.sources.gateways import WAYPOINT_CLASSES
from control.server.sources.objects import Gateway, Labels, PodObject

USE_LABEL: Final = "istio.io/use-waypoint"
USE_NAMESPACE_LABEL: Final = "istio.io/use-waypoint-namespace"
FOR_LABEL: Final = "istio.io/waypoint-for"
GATEWAY_NAME_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
HBONE_PROTOCOL: Final = "HBONE"
# In place of a waypoint: the labels say that there shall be none.
SWITCHED_OFF: Final = WaypointKey("", "")
_OFF: Final = "none"

_SERVICE: Final = "service"
_FOR_SERVICES: Final = frozenset({_SERVICE, "all"})
_FOR_WORKLOADS: Final = frozenset({"workload", "all"})


def wish_of(labels: Labels, namespace: str) -> WaypointKey | None:
    """The waypoint that labels ask for; SWITCHED_OFF for none, None if they say nothing."""
    name = labels.get(USE_LABEL)
    if not name:
        return None
    if name == _OFF:
        return SWITCHED_OFF
    return WaypointKey(labels.get(USE_NAMESPACE_LABEL) or namespace, name)


def is_waypoint(gateway: Gateway) -> bool:
    return gateway.class_name in WAYPOINT_CLASSES and any(
        each.protocol == HBONE_PROTOCOL and each.port == HBONE_PORT for each in gateway.listeners
    )


def key_of(gateway: Gateway) -> WaypointKey:
    return WaypointKey(gateway.meta.namespace, gateway.meta.name)


def allows(gateway: Gateway, namespace: str, labels: Labels) -> bool:
    """True if services of a namespace with these labels may use it."""
    own = gateway.meta.namespace
    return own == namespace or any(
        each.allows(own, namespace, labels)
        for each in gateway.listeners
        if each.protocol == HBONE_PROTOCOL and each.port == HBONE_PORT
    )


def is_for_services(gateway: Gateway) -> bool:
    return _traffic(gateway) in _FOR_SERVICES


def is_for_workloads(gateway: Gateway) -> bool:
    return _traffic(gateway) in _FOR_WORKLOADS


def _traffic(gateway: Gateway) -> str:
    """A word that nobody knows counts as not there: a slip opens nothing."""
    word = gateway.meta.labels.get(FOR_LABEL, _SERVICE)
    return word if word in (*_FOR_SERVICES, *_FOR_WORKLOADS, _OFF) else _SERVICE


def waypoint_of_pod(pod: PodObject) -> tuple[str, str] | None:
    """Namespace and name of the Gateway whose pod it would be, if that is a waypoint."""
    name = pod.meta.labels.get(GATEWAY_NAME_LABEL)
    return (pod.meta.namespace, name) if name and name == pod.service_account else None


def account_of(key: WaypointKey, settings: Settings) -> SpiffeId:
    return SpiffeId(settings.trust_domain, *key)
