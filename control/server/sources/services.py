"""Documents of Services and EndpointSlices → objects, with the API server's defaults filled in.

A value that would lead connections elsewhere and is not followed here is told in `not_followed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from control.model.address import Address, parse_address
from control.model.workload import OUTER_PORTS_MAX
from control.server.sources.core import read_address, read_protocol
from control.server.sources.objects import (
    EndpointSlice,
    Meta,
    ServiceObject,
    ServicePort,
    SliceEndpoint,
)
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader

HEADLESS = "None"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
AFFINITY_S, AFFINITY_S_MAX = 10800, 86400  # the API server's default and limit
SOURCE_RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"
TRAFFIC_DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution"
TOPOLOGY_ANNOTATIONS = (
    "service.kubernetes.io/topology-mode",
    "service.kubernetes.io/topology-aware-hints",
)
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
NEAR = ("PreferClose", "PreferSameZone", "PreferSameNode")
_KNOWN = {
    "type": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "sessionAffinity": ("None", "ClientIP"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "trafficDistribution": NEAR,
}


def read_service(document: Reader, meta: Meta) -> ServiceObject:
    spec = document.part("spec")
    ports = tuple(_service_port(each) for each in spec.children("ports"))
    external = [read_address(spec, "externalIPs", text) for text, _ in spec.texts("externalIPs")]
    outer_max = OUTER_PORTS_MAX // max(1, len(ports)) // 2  # half for those of a load balancer
    ranges = spec.texts("loadBalancerSourceRanges")
    ranged = bool(ranges or meta.annotations.get(SOURCE_RANGES_ANNOTATION))
    balancer = _balancer_addresses(document.part("status"))
    return ServiceObject(
        meta=meta,
        type=spec.text("type") or "ClusterIP",
        selector=spec.labels("selector"),
        addresses=_cluster_ips(spec),
        # The ranges are known to the proxy of plain connections; a tunnel would go around them.
        balancer_addresses=() if ranged else balancer[:outer_max],
        external_addresses=tuple(dict.fromkeys(external))[:outer_max],
        ports=ports,
        ip_families=tuple(text for text, _ in spec.texts("ipFamilies")),
        internal_traffic_policy=spec.text("internalTrafficPolicy") or "Cluster",
        traffic_distribution=spec.text("trafficDistribution")
        or meta.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION, ""),
        publish_not_ready=spec.flag("publishNotReadyAddresses"),
        affinity_s=_affinity_s(spec),
        not_followed=(
            *_not_followed(spec, meta, ranged and bool(balancer)),
            *_too_many("status.loadBalancer.ingress", balancer, outer_max),
            *_too_many("externalIPs", external, outer_max),
        ),
    )


def _too_many(field: str, found: Sequence[Address], most: int) -> Iterator[str]:
    if len(found) > most:
        yield f"{field}: only the first {most} addresses are served with so many ports"


def _not_followed(spec: Reader, meta: Meta, ranged: bool) -> Iterator[str]:
    for field, known in _KNOWN.items():
        value = spec.text(field)
        if value and value not in known:
            yield f"{field} {value} is unknown here and has no effect"
    for each in TOPOLOGY_ANNOTATIONS:
        if meta.annotations.get(each, "Disabled").lower() != "disabled":
            yield f"{each} has no effect; trafficDistribution has"
    if PROXY_NAME_LABEL in meta.labels:
        yield f"{PROXY_NAME_LABEL} has no effect: the mesh serves this service"
    if ranged:
        yield (
            "loadBalancerSourceRanges: connections to the load balancer's addresses pass as "
            "outside the mesh, where they are enforced"
        )


def _cluster_ips(spec: Reader) -> tuple[Address, ...]:
    texts = [text for text, _ in spec.texts("clusterIPs")] or [spec.text("clusterIP")]
    found = [read_address(spec, "clusterIPs", text) for text in texts if text not in ("", HEADLESS)]
    return tuple(dict.fromkeys(found))


def _balancer_addresses(status: Reader) -> tuple[Address, ...]:
    """Addresses of the load balancer. With `ipMode: Proxy` its traffic has to pass it, so such an
    address is not the service's own."""
    found = [
        read_address(each, "ip", each.text("ip"))
        for each in status.part("loadBalancer").children("ingress")
        if each.text("ip") and each.text("ipMode") != "Proxy"
    ]
    return tuple(dict.fromkeys(found))


def _affinity_s(spec: Reader) -> int:
    if spec.text("sessionAffinity") != "ClientIP":
        return 0
    client = spec.part("sessionAffinityConfig").part("clientIP")
    seconds = client.number("timeoutSeconds")
    if seconds is not None and not 0 < seconds <= AFFINITY_S_MAX:
        raise client.invalid("timeoutSeconds", f"{seconds} is out of range")
    return AFFINITY_S if seconds is None else seconds


def _service_port(port: Reader) -> ServicePort:
    number = port.port("port")
    if number is None:
        raise port.invalid("port", "is missing")
    return ServicePort(
        name=port.text("name"),
        protocol=read_protocol(port),
        port=number,
        target=_target(port, number),
        app_protocol=port.text("appProtocol"),
    )


def _target(port: Reader, default: int) -> int | str:
    value = port.fields.get("targetPort")
    if isinstance(value, str) and value:
        return value
    number = port.port("targetPort")
    return default if number is None else number


def read_slice(document: Reader, meta: Meta) -> EndpointSlice:
    ports: dict[str, int] = {}
    for each in document.children("ports"):
        name, number, protocol = each.text("name"), each.port("port"), read_protocol(each)
        if number is not None and protocol == "TCP":
            ports[name] = number
    endpoints = document.children("endpoints")
    hinted = any(each.part("hints").fields for each in endpoints)
    return EndpointSlice(
        meta=meta,
        service=meta.labels.get(SERVICE_NAME_LABEL, ""),
        endpoints=tuple(_endpoint(each, meta) for each in endpoints),
        ports=ports,
        has_hints=hinted,
    )


def _endpoint(endpoint: Reader, meta: Meta) -> SliceEndpoint:
    addresses = []
    for text, line in endpoint.texts("addresses"):
        try:
            addresses.append(parse_address(text))
        except ValueError as exc:
            raise Invalid(f"{endpoint.where('addresses')}: {text!r}: {exc}", line) from exc
    target = endpoint.part("targetRef")
    pod: tuple[str, str] | None = None
    # A pod of another namespace is not its to name; the address says which pod that is.
    kind, namespace, name = (target.text(each) for each in ("kind", "namespace", "name"))
    if kind == "Pod" and namespace in ("", meta.namespace):
        pod = (meta.namespace, name)
    conditions = endpoint.part("conditions")
    ready = conditions.flag("ready", True)
    serving, terminating = conditions.flag("serving", ready), conditions.flag("terminating")
    return SliceEndpoint(
        addresses=tuple(addresses),
        ready=ready,
        last_resort=serving and terminating and not ready,
        node=endpoint.text("nodeName"),
        zone=endpoint.text("zone"),
        pod=pod,
    )
