"""Manifests of waypoints, routes and what they stand before, for tests."""

from __future__ import annotations

from collections.abc import Mapping

from control.model.route import Front, Waypoint, WaypointDelta, WaypointKey
from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.gateway.gateways import Gateways
from control.server.gateway.statuses import RouteStatus
from control.server.sources.objects import AnyObject, Key
from tests.support.manifests import objects


def namespace(labels: str = "", name: str = "shop") -> str:
    return f"""
---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{{labels}}}}}
"""


def gateway(
    name: str = "way",
    namespace: str = "shop",
    *,
    traffic: str = "",
    class_name: str = "tulle-waypoint",
    port: int = 15008,
    protocol: str = "HBONE",
    allowed: str = "",
) -> str:
    """A waypoint; `allowed` is the inside of allowedRoutes.namespaces."""
    labels = f"istio.io/waypoint-for: {traffic}" if traffic else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec:
  gatewayClassName: {class_name}
  listeners:
  - name: mesh
    port: {port}
    protocol: {protocol}
    allowedRoutes: {{namespaces: {{{allowed}}}}}
"""


def service(
    service_name: str,
    namespace: str = "shop",
    *,
    labels: str = "",
    port: int = 80,
    name: str = "http",
    selector: str = "",
    cluster_ip: str = "",
    ports: str = "",
) -> str:
    """A service with one port; each name has its own address."""
    address = (
        cluster_ip or f"10.96.{sum(namespace.encode()) % 256}.{sum(service_name.encode()) % 256}"
    )
    selector = selector or f"app: {service_name}"
    ports = ports or f"{{port: {port}, name: {name}, targetPort: 8080}}"
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {service_name}, namespace: {namespace}, labels: {{{labels}}}}}
spec: {{clusterIP: {address}, selector: {{{selector}}}, ports: [{ports}]}}
"""


def route(
    spec: str,
    name: str = "route",
    namespace: str = "shop",
    *,
    parent: str = "{group: '', kind: Service, name: web}",
    created: str = "",
) -> str:
    """An HTTPRoute; `spec` is the inside of a flow mapping, without its parents."""
    made = f", creationTimestamp: '{created}'" if created else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}{made}}}
spec: {{parentRefs: [{parent}], {spec}}}
"""


def grant(namespace: str, from_namespace: str, name: str = "", kind: str = "HTTPRoute") -> str:
    """A ReferenceGrant for services of a namespace."""
    to = f"{{group: '', kind: Service{f', name: {name}' if name else ''}}}"
    source = f"{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {from_namespace}}}"
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: grant, namespace: {namespace}}}
spec: {{from: [{source}], to: [{to}]}}
"""


class Bench:
    """A mesh and its gateways, from manifests; changed by more of them."""

    def __init__(self, text: str = "", captured: frozenset[str] = frozenset()) -> None:
        settings = Settings()
        self.mesh = Mesh(settings, KnownCaptures(captured))
        self.gateways = Gateways(settings)
        self.deltas: dict[WaypointKey, WaypointDelta] = {}
        self.put(text)

    def put(self, text: str) -> dict[WaypointKey, WaypointDelta]:
        """Objects that are new, or other than before."""
        return self.change(dict(objects(text).by_key()))

    def drop(self, kind: str, name: str, namespace: str = "shop") -> None:
        self.change({Key(kind, namespace, name): None})

    def change(self, changed: Mapping[Key, AnyObject | None]) -> dict[WaypointKey, WaypointDelta]:
        self.deltas = self.gateways.apply(changed, self.mesh.apply(changed))
        return self.deltas

    def waypoint(self, name: str = "way", namespace: str = "shop") -> Waypoint:
        return self.gateways.waypoints[WaypointKey(namespace, name)]

    def front(self, name: str = "shop/web:80", waypoint: str = "way") -> Front:
        return self.waypoint(waypoint).fronts[name]

    def status(self, route: str = "route", namespace: str = "shop") -> RouteStatus:
        """The one status of a route."""
        key = Key("HTTPRoute", namespace, route)
        (found,) = [each for each in self.gateways.statuses if each.route == key]
        return found
