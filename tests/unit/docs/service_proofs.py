"""The proofs of the honoured fields in docs/services.md."""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.docs.service_scenes import (
    BALANCER,
    BASE,
    BEHIND,
    BOTH,
    BY_NAME,
    CLOSED,
    FIRST,
    INIT,
    NAMED,
    NEAR,
    NOBODY,
    ONE,
    OUT,
    OUTER,
    PLACE,
    PODS,
    READY,
    TO_FIRST,
    TWO,
    TWO_PORTS,
    V6,
    VIP,
    Field,
    endpoint_slice,
    on_host,
    pod,
    service,
)


@dataclass(frozen=True)
class Proof:
    """Without the field connections go the way of `before`, with it the way of `after`."""

    before: str
    after: str
    expected: set[str]
    usual: set[str] | None = None
    destination: str = VIP


HONOURED: dict[Field, Proof] = {
    ("Service", "spec.type"): Proof(
        BASE, PODS + service("type: ExternalName"), {"plain 10.9.0.1:80"}, BOTH
    ),
    ("Service", "spec.selector"): Proof(BASE, PODS + service("selector: {a: b}"), NOBODY, BOTH),
    ("Service", "spec.clusterIP"): Proof(
        PODS + service("clusterIP: None, clusterIPs: []"),
        PODS + service("clusterIP: 10.9.0.1, clusterIPs: []"),
        BOTH,
        {"plain 10.9.0.1:80"},
    ),
    ("Service", "spec.clusterIPs"): Proof(
        PODS + service("clusterIP: 10.9.0.1, clusterIPs: []"),
        BASE,
        {"hbone [fd00::1]:80 shop/web", "hbone [fd00::2]:80 shop/web"},
        {"plain [fd00:9::1]:80"},
        V6,
    ),
    ("Service", "spec.externalIPs"): Proof(
        BASE, PODS + service("externalIPs: [192.0.2.1]"), BOTH, {f"plain {OUTER}"}, OUTER
    ),
    ("Service", "spec.internalTrafficPolicy"): Proof(
        BASE, PODS + service("internalTrafficPolicy: Local"), {ONE}, BOTH
    ),
    ("Service", "spec.ipFamilies"): Proof(
        BASE,
        PODS + service("ipFamilies: [IPv6]"),
        {"hbone [fd00::1]:80 shop/web", "hbone [fd00::2]:80 shop/web"},
        BOTH,
    ),
    ("Service", "spec.publishNotReadyAddresses"): Proof(
        FIRST + pod("web-2", "10.1.0.2", "n2", status=READY % "False") + service(),
        FIRST
        + pod("web-2", "10.1.0.2", "n2", status=READY % "False")
        + service("publishNotReadyAddresses: true"),
        BOTH,
        {ONE},
    ),
    ("Service", "spec.sessionAffinity"): Proof(
        BASE, PODS + service("sessionAffinity: ClientIP"), {ONE}, BOTH
    ),
    ("Service", "spec.sessionAffinityConfig"): Proof(
        BASE,
        PODS
        + service(
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}"
        ),
        {ONE},
        BOTH,
    ),
    ("Service", "spec.trafficDistribution"): Proof(BASE, PODS + service(NEAR), {ONE}, BOTH),
    ("Service", "spec.ports.port"): Proof(BASE, PODS + service(port="port: 81"), CLOSED, BOTH),
    ("Service", "spec.ports.targetPort"): Proof(
        BASE,
        PODS + service(port="port: 80, targetPort: 8080"),
        {"hbone 10.1.0.1:8080 shop/web", "hbone 10.1.0.2:8080 shop/web"},
        BOTH,
    ),
    ("Service", "spec.ports.name"): Proof(
        PODS + service(port=TWO_PORTS) + endpoint_slice(TO_FIRST, "port: 8080, name: a"),
        PODS + service(port=TWO_PORTS) + endpoint_slice(TO_FIRST, "port: 8080, name: b"),
        NOBODY,
        {"hbone 10.1.0.1:8080 shop/web"},
    ),
    ("Service", "spec.ports.protocol"): Proof(
        PODS + service(port="port: 80, targetPort: 1, name: a"),
        PODS
        + service(
            port="port: 80, targetPort: 1, name: a, protocol: UDP}, "
            "{port: 80, targetPort: 2, name: b"
        ),
        {"hbone 10.1.0.1:2 shop/web", "hbone 10.1.0.2:2 shop/web"},
        {"hbone 10.1.0.1:1 shop/web", "hbone 10.1.0.2:1 shop/web"},
    ),
    ("Service", "spec.ports.nodePort"): Proof(
        BASE,
        PODS + service("type: NodePort", port="port: 80, nodePort: 30080"),
        {"plain 192.0.2.9:30080"},
        destination="192.0.2.9:30080",
    ),
    ("Service", "status.loadBalancer.ingress.ip"): Proof(
        BASE, PODS + service(status=BALANCER % ""), BOTH, {f"plain {OUTER}"}, OUTER
    ),
    ("Service", "status.loadBalancer.ingress.ipMode"): Proof(
        PODS + service(status=BALANCER % ", ipMode: VIP"),
        PODS + service(status=BALANCER % ", ipMode: Proxy"),
        {f"plain {OUTER}"},
        BOTH,
        OUTER,
    ),
    ("Service", "metadata.annotations.networking.istio.io/traffic-distribution"): Proof(
        BASE,
        PODS + service(meta="annotations: {networking.istio.io/traffic-distribution: PreferClose}"),
        {ONE},
        BOTH,
    ),
    ("EndpointSlice", "metadata.labels.kubernetes.io/service-name"): Proof(
        BASE + endpoint_slice(TO_FIRST, labels="a: b"), BASE + endpoint_slice(TO_FIRST), {ONE}, BOTH
    ),
    ("EndpointSlice", "endpoints.addresses"): Proof(
        BASE + endpoint_slice(TO_FIRST), BASE + endpoint_slice(PLACE), {OUT}, {ONE}
    ),
    ("EndpointSlice", "endpoints.conditions.ready"): Proof(
        BASE + endpoint_slice(TO_FIRST),
        BASE + endpoint_slice(TO_FIRST + ", conditions: {ready: false}"),
        NOBODY,
        {ONE},
    ),
    ("EndpointSlice", "endpoints.conditions.serving"): Proof(
        BASE + endpoint_slice(PLACE + ", conditions: {ready: false, terminating: true}"),
        BASE
        + endpoint_slice(PLACE + ", conditions: {ready: false, serving: true, terminating: true}"),
        {OUT},
        NOBODY,
    ),
    ("EndpointSlice", "endpoints.conditions.terminating"): Proof(
        BASE + endpoint_slice(PLACE + ", conditions: {ready: false, serving: true}"),
        BASE
        + endpoint_slice(PLACE + ", conditions: {ready: false, serving: true, terminating: true}"),
        {OUT},
        NOBODY,
    ),
    ("EndpointSlice", "endpoints.nodeName"): Proof(
        PODS
        + service(NEAR)
        + endpoint_slice(f"{PLACE}, nodeName: n2}}, {{addresses: [192.0.2.8], nodeName: n2"),
        PODS
        + service(NEAR)
        + endpoint_slice(f"{PLACE}, nodeName: n1}}, {{addresses: [192.0.2.8], nodeName: n2"),
        {OUT},
        {OUT, "plain 192.0.2.8:80"},
    ),
    ("EndpointSlice", "endpoints.targetRef"): Proof(
        BASE + endpoint_slice("addresses: [10.1.0.1]"),
        BASE + endpoint_slice("addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-2}"),
        {TWO},
        {ONE},
    ),
    ("EndpointSlice", "endpoints.zone"): Proof(
        PODS + service(NEAR) + endpoint_slice(f"{PLACE}}}, {{addresses: [192.0.2.8]"),
        PODS + service(NEAR) + endpoint_slice(f"{PLACE}, zone: z1}}, {{addresses: [192.0.2.8]"),
        {OUT},
        {OUT, "plain 192.0.2.8:80"},
    ),
    ("EndpointSlice", "ports.name"): Proof(
        PODS + service(port=TWO_PORTS) + endpoint_slice(TO_FIRST, "port: 8080, name: a"),
        PODS + service(port=TWO_PORTS) + endpoint_slice(TO_FIRST, "port: 8080, name: b"),
        NOBODY,
        {"hbone 10.1.0.1:8080 shop/web"},
    ),
    ("EndpointSlice", "ports.port"): Proof(
        BASE + endpoint_slice(TO_FIRST),
        BASE + endpoint_slice(TO_FIRST) + endpoint_slice(TO_FIRST, "port: 81", name="t"),
        {ONE, "hbone 10.1.0.1:81 shop/web"},
        {ONE},
    ),
    ("EndpointSlice", "ports.protocol"): Proof(
        BASE + endpoint_slice(TO_FIRST),
        BASE + endpoint_slice(TO_FIRST, "port: 80, protocol: UDP"),
        NOBODY,
        {ONE},
    ),
    ("Pod", "metadata.labels"): Proof(
        BASE, FIRST + pod("web-2", "10.1.0.2", "n2", "labels: {app: x}") + service(), {ONE}, BOTH
    ),
    ("Pod", "metadata.deletionTimestamp"): Proof(
        BASE,
        FIRST
        + pod("web-2", "10.1.0.2", "n2", "labels: {app: web}, deletionTimestamp: x")
        + service(),
        {ONE},
        BOTH,
    ),
    ("Pod", "spec.nodeName"): Proof(
        PODS + service(NEAR), FIRST + pod("web-2", "10.1.0.2", "n1") + service(NEAR), BOTH, {ONE}
    ),
    ("Pod", "spec.hostNetwork"): Proof(
        BASE,
        FIRST
        + pod("web-2", "10.1.0.2", "n2", spec="serviceAccountName: web, hostNetwork: true")
        + service(),
        {ONE, "plain 10.1.0.2:80"},
        BOTH,
    ),
    ("Pod", "spec.serviceAccountName"): Proof(
        BASE,
        FIRST + pod("web-2", "10.1.0.2", "n2", spec="serviceAccountName: x") + service(),
        {ONE, "hbone 10.1.0.2:80 shop/x"},
        BOTH,
    ),
    ("Pod", "spec.serviceAccount"): Proof(
        BASE,
        FIRST + pod("web-2", "10.1.0.2", "n2", spec="serviceAccount: x") + service(),
        {ONE, "hbone 10.1.0.2:80 shop/x"},
        BOTH,
    ),
    ("Pod", "spec.containers.ports.name"): Proof(
        pod("web-1", "10.1.0.1", "n1", spec=NAMED % "{name: x, containerPort: 80}") + BY_NAME,
        pod("web-1", "10.1.0.1", "n1", spec=NAMED % "{name: http, containerPort: 80}") + BY_NAME,
        {ONE},
        NOBODY,
    ),
    ("Pod", "spec.containers.ports.containerPort"): Proof(
        pod("web-1", "10.1.0.1", "n1", spec=NAMED % "{name: http, containerPort: 80}") + BY_NAME,
        pod("web-1", "10.1.0.1", "n1", spec=NAMED % "{name: http, containerPort: 81}") + BY_NAME,
        {"hbone 10.1.0.1:81 shop/web"},
        {ONE},
    ),
    ("Pod", "spec.containers.ports.protocol"): Proof(
        pod("web-1", "10.1.0.1", "n1", spec=NAMED % "{name: http, containerPort: 80}") + BY_NAME,
        pod(
            "web-1",
            "10.1.0.1",
            "n1",
            spec=NAMED % "{name: http, containerPort: 80, protocol: UDP}",
        )
        + BY_NAME,
        NOBODY,
        {ONE},
    ),
    ("Pod", "spec.containers.ports.hostPort"): Proof(
        on_host("", "hostIPs: [{ip: 192.0.2.9}]"),
        on_host("hostPort: 8000", "hostIPs: [{ip: 192.0.2.9}]"),
        {ONE},
        {f"plain {BEHIND}"},
        BEHIND,
    ),
    ("Pod", "spec.containers.ports.hostIP"): Proof(
        on_host("hostPort: 8000, hostIP: 192.0.2.9", "hostIPs: [{ip: 192.0.2.8}]"),
        on_host("hostPort: 8000, hostIP: 192.0.2.9", "hostIPs: [{ip: 192.0.2.9}]"),
        {ONE},
        {f"plain {BEHIND}"},
        BEHIND,
    ),
    ("Pod", "status.hostIP"): Proof(
        on_host("hostPort: 8000", ""),
        on_host("hostPort: 8000", "hostIP: 192.0.2.9"),
        {ONE},
        {f"plain {BEHIND}"},
        BEHIND,
    ),
    ("Pod", "status.hostIPs"): Proof(
        on_host("hostPort: 8000", "hostIP: 192.0.2.8"),
        on_host("hostPort: 8000", "hostIP: 192.0.2.8, hostIPs: [{ip: 192.0.2.9}]"),
        {ONE},
        {f"plain {BEHIND}"},
        BEHIND,
    ),
    ("Pod", "spec.initContainers.restartPolicy"): Proof(
        pod("web-1", "10.1.0.1", "n1", spec=INIT % "") + BY_NAME,
        pod("web-1", "10.1.0.1", "n1", spec=INIT % "restartPolicy: Always,") + BY_NAME,
        {ONE},
        NOBODY,
    ),
    ("Pod", "status.podIP"): Proof(
        BASE,
        FIRST + pod("web-2", "", "n2", status="phase: Running, podIP: 10.1.0.3") + service(),
        {ONE, "hbone 10.1.0.3:80 shop/web"},
        BOTH,
    ),
    ("Pod", "status.podIPs"): Proof(
        BASE,
        FIRST
        + pod("web-2", "", "n2", status="phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.4}]")
        + service(),
        {ONE, "hbone 10.1.0.4:80 shop/web"},
        BOTH,
    ),
    ("Pod", "status.phase"): Proof(
        BASE,
        FIRST + pod("web-2", "", "n2", status="phase: Failed, podIP: 10.1.0.2") + service(),
        {ONE},
        BOTH,
    ),
    ("Pod", "status.conditions"): Proof(
        BASE, FIRST + pod("web-2", "", "n2", status=READY % "False") + service(), {ONE}, BOTH
    ),
}
