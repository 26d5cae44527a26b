"""Versions of objects about waypoints, for the worlds of `mesh_worlds`."""

from __future__ import annotations

from tests.support import gateways as made
from tests.support.manifests import pod, policy

USE = "istio.io/use-waypoint: way"
OTHER = "istio.io/use-waypoint: gate, istio.io/use-waypoint-namespace: mine"
WEB_BY_OTHER = f"app: web, {OTHER}"
WAY_POD = "gateway.networking.k8s.io/gateway-name: way"
TO_WEB = "rules: [{backendRefs: [{name: web, port: 80}]}]"
TO_BOTH = """rules: [
  {matches: [{path: {value: /a}}, {method: GET}], backendRefs: [{name: db, port: 80, weight: 2}]},
  {filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}],
   backendRefs: [{name: far, namespace: mine, port: 80}]}]"""
PARENT_PORT = "{group: '', kind: Service, name: db, port: 80}"
BY_GATEWAY = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: way}]"
BY_SERVICE = "targetRefs: [{kind: Service, name: web}]"
GETS = "rules: [{to: [{operation: {methods: [GET]}}]}]"

GATEWAY_VERSIONS = [
    [
        made.gateway(),
        made.gateway(traffic="all"),
        made.gateway(traffic="workload"),
        made.gateway(class_name="other"),
    ],
    [
        made.gateway("gate", "mine"),
        made.gateway("gate", "mine", allowed="from: All"),
        made.gateway(
            "gate", "mine", allowed="from: Selector, selector: {matchLabels: {tulle.io/x: y}}"
        ),
    ],
    [made.namespace(USE), made.namespace(f"{OTHER}, tulle.io/x: y")],
    [
        made.service("web", labels=USE),
        made.service("web", labels=OTHER, ports="{port: 80, name: any}, {port: 81, name: http}"),
        made.service("web", labels=USE, cluster_ip="None"),
    ],
    [made.service("db", labels=USE, name="tcp"), made.service("db", labels=OTHER)],
    [made.service("far", "mine"), made.service("far", "mine", port=81)],
    [made.service("way", port=15008, name="hbone")],
    [
        pod("y", labels=WAY_POD, spec="serviceAccountName: way", address="10.1.0.11"),
        pod("y", labels=WAY_POD, spec="serviceAccountName: other", address="10.1.0.11"),
    ],
    [
        pod("z", labels=f"app: web, {USE}", address="10.1.0.12"),
        pod("z", labels="app: web, " + OTHER),
    ],
    [
        made.route(TO_WEB, "one", created="2026-01-01T00:00:00Z"),
        made.route(TO_BOTH, "one", created="2026-01-03T00:00:00Z"),
        made.route(TO_BOTH, "one", parent=PARENT_PORT),
    ],
    [
        made.route(TO_BOTH, "two", created="2026-01-02T00:00:00Z"),
        made.route("rules: []", "two", parent="{group: '', kind: Service, name: db}"),
    ],
    [
        made.route(TO_WEB, "three").replace("HTTPRoute", "TCPRoute"),
        made.route(TO_WEB, "three", parent=PARENT_PORT).replace("HTTPRoute", "TCPRoute"),
    ],
    [
        made.route(TO_WEB, "four", parent=PARENT_PORT).replace("HTTPRoute", "TCPRoute"),
        made.route(TO_WEB, "four", parent=PARENT_PORT).replace("HTTPRoute", "GRPCRoute"),
    ],
    [made.grant("mine", "shop"), made.grant("mine", "shop", "other")],
    [
        policy(f"{{{BY_GATEWAY}, {GETS}}}", name="l7"),
        policy(f"{{{BY_SERVICE}, {GETS}}}", name="l7"),
        policy("{selector: {matchLabels: {app: web}}}", name="l7"),
    ],
]
