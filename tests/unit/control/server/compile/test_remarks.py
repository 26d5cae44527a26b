"""Remarks: one for each pair of objects, naming both, with the place of the one to change."""

from __future__ import annotations

from tests.support.manifests import mesh, pod


def service(name: str, spec: str) -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mine}}\n"
        f"spec: {{ports: [{{port: 80}}], {spec}}}\n"
    )


def test_nothing_to_say() -> None:
    assert mesh(pod() + service("a", "clusterIP: 10.9.0.1")).notes == ()


def test_both_objects_are_named_once_whatever_the_number_of_addresses() -> None:
    text = pod(address='10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: "fd00::1"}]')
    text += service("a", 'externalIPs: [10.1.0.1, "fd00::1"]')
    (said,) = mesh(text).notes
    assert (said.file, said.line) == ("a.yaml", 9)
    assert (said.object, said.reason) == ("Service mine/a", "address_claimed")
    assert said.message == (
        "external IP 10.1.0.1 is the address of Pod shop/web: it has no effect here "
        "(and 1 more like it)"
    )


def test_a_slice_of_another_namespace_is_told_whose_pod_that_is() -> None:
    text = pod() + service("a", "clusterIP: None")
    text += (
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: a-1, namespace: mine, labels: {kubernetes.io/service-name: a}}\n"
        "addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.1.0.1]}]\n"
    )
    (said,) = mesh(text).notes
    assert said.object == "EndpointSlice mine/a-1"
    assert said.message == (
        "endpoint 10.1.0.1 is the address of Pod shop/web: connections go to that pod, with its "
        "identity and its policies"
    )
