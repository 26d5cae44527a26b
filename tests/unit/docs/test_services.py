"""docs/services.md against the API's fields, and each of its lines against the routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from tests.support import manifests
from tests.unit.docs.service_proofs import HONOURED
from tests.unit.docs.service_scenes import (
    BALANCER,
    BASE,
    BOTH,
    CLIENT,
    NEAR,
    NODES,
    OUTER,
    PODS,
    SECOND,
    TO_FIRST,
    VIP,
    Field,
    endpoint_slice,
    pod,
    service,
    ways,
)

TABLES = (Path(__file__).parents[3] / "docs/services.md").read_text()
LINE = re.compile(r"^\| `([^`]+)` \| (\w+) \|", re.MULTILINE)

# The fields of core/v1 ServiceSpec, ServicePort and ServiceStatus, of discovery/v1 EndpointSlice,
# and those of core/v1 PodSpec and PodStatus that concern the network, as of Kubernetes 1.34.
API = {
    "Service": """
        spec: allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName
              externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies
              ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges
              publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig
              trafficDistribution type
        spec.ports: appProtocol name nodePort port protocol targetPort
        status: conditions
        status.loadBalancer.ingress: hostname ip ipMode ports
        metadata.annotations: networking.istio.io/traffic-distribution
              service.kubernetes.io/topology-mode service.kubernetes.io/topology-aware-hints
              service.beta.kubernetes.io/load-balancer-source-ranges
        metadata.labels: service.kubernetes.io/service-proxy-name
    """,
    "EndpointSlice": """
        : addressType
        endpoints: addresses deprecatedTopology hints hostname nodeName targetRef zone
        endpoints.conditions: ready serving terminating
        ports: appProtocol name port protocol
        metadata.labels: kubernetes.io/service-name
    """,
    "Pod": """
        metadata: labels deletionTimestamp
        spec: dnsConfig dnsPolicy enableServiceLinks hostAliases hostNetwork hostname
              hostnameOverride nodeName readinessGates restartPolicy serviceAccount
              serviceAccountName setHostnameAsFQDN subdomain terminationGracePeriodSeconds
        spec.containers.ports: containerPort hostIP hostPort name protocol
        spec.initContainers: restartPolicy
        status: conditions hostIP hostIPs phase podIP podIPs
    """,
}


def api() -> set[Field]:
    found: set[Field] = set()
    for kind, text in API.items():
        path = ""
        for word in text.split():
            if word.endswith(":"):
                path = word[:-1] + "." if word != ":" else ""
            else:
                found.add((kind, path + word))
    return found


def documented() -> dict[Field, str]:
    found = {}
    for part in TABLES.split("\n## ")[1:]:
        kind = part.partition("\n")[0]
        found.update({(kind, path): said for path, said in LINE.findall(part)})
    return found


def test_every_field_of_the_api_has_its_line_and_no_other() -> None:
    assert set(documented()) == api()
    assert set(documented().values()) == {"honoured", "reported", "irrelevant"}


def test_every_line_has_its_proof() -> None:
    assert set(HONOURED) == {each for each, said in documented().items() if said == "honoured"}
    assert set(REPORTED) == {each for each, said in documented().items() if said == "reported"}
    assert set(IRRELEVANT) == {each for each, said in documented().items() if said == "irrelevant"}


# Passed on as addressed: the field changes nothing, and nothing stands in its way.
AS_ADDRESSED = {("Service", "spec.ports.nodePort")}


@pytest.mark.parametrize("field", HONOURED, ids=".".join)
def test_an_honoured_field_leads(field: Field) -> None:
    proof = HONOURED[field]
    assert ways(proof.after, proof.destination) == proof.expected
    before = ways(proof.before, proof.destination)
    if field in AS_ADDRESSED:
        assert before == proof.expected
    else:
        assert before == proof.usual != proof.expected


# A text in which the field is not followed, and the text of the note
REPORTED: dict[Field, tuple[str, str]] = {
    ("Service", "spec.loadBalancerSourceRanges"): (
        PODS + service("loadBalancerSourceRanges: [10.0.0.0/8]", status=BALANCER % ""),
        "loadBalancerSourceRanges",
    ),
    (
        "Service",
        "metadata.annotations.service.beta.kubernetes.io/load-balancer-source-ranges",
    ): (
        PODS
        + service(
            meta="annotations: "
            "{service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8}",
            status=BALANCER % "",
        ),
        "loadBalancerSourceRanges",
    ),
    ("Service", "metadata.annotations.service.kubernetes.io/topology-mode"): (
        PODS + service(meta="annotations: {service.kubernetes.io/topology-mode: Auto}"),
        "topology-mode",
    ),
    ("Service", "metadata.annotations.service.kubernetes.io/topology-aware-hints"): (
        PODS + service(meta="annotations: {service.kubernetes.io/topology-aware-hints: auto}"),
        "topology-aware-hints",
    ),
    ("Service", "metadata.labels.service.kubernetes.io/service-proxy-name"): (
        PODS + service(meta="labels: {service.kubernetes.io/service-proxy-name: x}"),
        "service-proxy-name",
    ),
    ("EndpointSlice", "endpoints.hints"): (
        BASE + endpoint_slice(TO_FIRST + ", hints: {forZones: [{name: z2}]}"),
        "hints",
    ),
    ("EndpointSlice", "addressType"): (
        BASE + endpoint_slice("addresses: [db.example]", more="addressType: FQDN"),
        "db.example",
    ),
}


@pytest.mark.parametrize("field", REPORTED, ids=".".join)
def test_a_reported_field_is_told(field: Field) -> None:
    text, word = REPORTED[field]
    snapshot = manifests.load(NODES + CLIENT + text)
    mesh = compile_mesh(snapshot.objects, Settings(), frozenset())
    told = [*snapshot.problems, *mesh.notes]
    assert [word in each.message for each in told] == [True]
    name = "web" if field[0] == "Service" else "s"
    assert told[0].object == f"{field[0]} shop/{name}"


def test_source_ranges_are_left_to_whoever_knows_them() -> None:
    text, _ = REPORTED["Service", "spec.loadBalancerSourceRanges"]
    assert ways(text, OUTER) == {f"plain {OUTER}"}
    assert ways(text) == BOTH


def test_nothing_is_told_about_the_usual() -> None:
    slices = endpoint_slice(TO_FIRST + ", hints: {forZones: [{name: z2}]}")
    for text in (BASE, BASE + endpoint_slice(TO_FIRST), PODS + service(NEAR) + slices):
        assert compile_mesh(manifests.objects(text), Settings(), frozenset()).notes == ()


@pytest.mark.parametrize(
    "spec",
    [
        "type: Fancy",
        "sessionAffinity: Cookie",
        "internalTrafficPolicy: Zone",
        "trafficDistribution: PreferFar",
    ],
)
def test_a_value_of_tomorrow_is_told_and_has_no_effect(spec: str) -> None:
    text = PODS + service(spec)
    assert ways(text) == BOTH
    (note,) = compile_mesh(manifests.objects(text), Settings(), frozenset()).notes
    assert note.message == f"{spec.replace(':', '')} is unknown here and has no effect"


IRRELEVANT: dict[Field, str] = {
    ("Service", "spec.externalName"): PODS + service("externalName: x.example"),
    ("Service", "spec.externalTrafficPolicy"): PODS + service("externalTrafficPolicy: Local"),
    ("Service", "spec.ipFamilyPolicy"): PODS + service("ipFamilyPolicy: RequireDualStack"),
    ("Service", "spec.loadBalancerIP"): PODS + service("loadBalancerIP: 192.0.2.1"),
    ("Service", "spec.loadBalancerClass"): PODS + service("loadBalancerClass: x"),
    ("Service", "spec.allocateLoadBalancerNodePorts"): PODS
    + service("allocateLoadBalancerNodePorts: false"),
    ("Service", "spec.healthCheckNodePort"): PODS + service("healthCheckNodePort: 30000"),
    ("Service", "spec.ports.appProtocol"): PODS + service(port="port: 80, appProtocol: http"),
    ("Service", "status.loadBalancer.ingress.hostname"): PODS
    + service(status="loadBalancer: {ingress: [{hostname: x.example}]}"),
    ("Service", "status.loadBalancer.ingress.ports"): PODS
    + service(status="loadBalancer: {ingress: [{ports: [{port: 1, protocol: TCP}]}]}"),
    ("Service", "status.conditions"): PODS + service(status="conditions: [{type: x}]"),
    ("EndpointSlice", "endpoints.hostname"): BASE + endpoint_slice(TO_FIRST + ", hostname: x"),
    ("EndpointSlice", "endpoints.deprecatedTopology"): BASE
    + endpoint_slice(TO_FIRST + ", deprecatedTopology: {a: b}"),
    ("EndpointSlice", "ports.appProtocol"): BASE
    + endpoint_slice(TO_FIRST, "port: 80, appProtocol: http"),
    **{
        ("Pod", f"spec.{each.partition(':')[0]}"): pod(
            "web-1", "10.1.0.1", "n1", spec=f"serviceAccountName: web, {each}"
        ) + SECOND + service()
        for each in (
            "hostAliases: [{ip: 10.9.0.1, hostnames: [x]}]",
            "hostname: x",
            "hostnameOverride: x",
            "subdomain: web",
            "setHostnameAsFQDN: true",
            "dnsPolicy: None",
            "dnsConfig: {nameservers: [10.9.0.9]}",
            "enableServiceLinks: true",
            "readinessGates: [{conditionType: x}]",
            "restartPolicy: Never",
            "terminationGracePeriodSeconds: 0",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("field", IRRELEVANT, ids=".".join)
def test_an_irrelevant_field_leads_nowhere(field: Field) -> None:
    usual = BASE + endpoint_slice(TO_FIRST) if field[0] == "EndpointSlice" else BASE
    for destination in (VIP, "192.0.2.1:80", "10.9.0.1:81", "10.1.0.1:80"):
        assert ways(IRRELEVANT[field], destination) == ways(usual, destination)
