"""Objects of one namespace that claim the addresses of another, on a running mesh: no pod leaves
mutual TLS, no policy is void, no virtual address changes hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.lab.manifests import Manifests, Ref
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import FAMILIES, Bed, Reply, speak

VIPS = {4: "172.20.77.1", 6: "fd72::7701"}
THIEF = {4: "172.20.77.2", 6: "fd72::7702"}
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
VICTIM = f"""
apiVersion: v1
kind: Service
metadata: {{name: victim, namespace: mesh, creationTimestamp: "2026-01-01T00:00:00Z"}}
spec: {{clusterIPs: ["{VIPS[4]}", "{VIPS[6]}"], selector: {{app: server}}, ports: [{{port: 8080}}]}}
"""


PAIRS = 9  # objects that claim one address


def service(name: str, spec: str, status: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: plain}}\n"
        f"spec: {{{spec}, ports: [{{name: p, port: 8080}}]}}\nstatus: {{{status}}}\n"
    )


def endpoint_slice(name: str, owner: str, family: int, address: str, more: str = "") -> str:
    meta = f"name: {name}, namespace: plain, labels: {{kubernetes.io/service-name: {owner}}}"
    return (
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{{meta}}}\n"
        f"addressType: IPv{family}\nports: [{{name: p, port: 8080}}]\n"
        f'endpoints: [{{addresses: ["{address}"]{more}}}]\n'
    )


def quoted(addresses: dict[int, str]) -> str:
    return ", ".join(f'"{each}"' for each in addresses.values())


def hostile(bed: Bed) -> list[str]:
    """Every object of `plain` that could take something; all lead to `stranger`."""
    server, thief = ({f: bed.address(name, f) for f in FAMILIES} for name in ("server", "stranger"))
    both = {4: f"{server[4]}", 6: server[6]}
    ingress = ", ".join(f'{{ip: "{each}"}}' for each in (*VIPS.values(), *server.values()))
    texts = [
        service("hand", f"clusterIPs: [{quoted(THIEF)}]"),
        service("cluster", f"clusterIPs: [{quoted(both)}]"),
        service("twin", f"clusterIPs: [{quoted(VIPS)}]"),
        service("balancer", "type: LoadBalancer", f"loadBalancer: {{ingress: [{ingress}]}}"),
        service("external", f"externalIPs: [{quoted(VIPS)}, {quoted(server)}]"),
    ]
    for family in FAMILIES:
        # The one that worked: a captured pod's address, without a name.
        texts.append(endpoint_slice(f"hand-{family}", "hand", family, server[family]))
        texts += [
            endpoint_slice(f"{name}-{family}", name, family, thief[family])
            for name in ("cluster", "twin", "balancer", "external")
        ]
    # Named like the pod, on its node.
    node = f", nodeName: {bed.there}"
    texts.append(endpoint_slice("server", "hand", 4, f"::ffff:{server[4]}", node))
    return texts


@contextmanager
def claimed(bed: Bed, *more: str) -> Iterator[None]:
    texts = hostile(bed)

    def told() -> bool:
        return len(bed.control("/notes")) >= PAIRS

    with bed.policy(VICTIM, *more, *texts):
        eventually(told, "the claims are told", 20)
        eventually(lambda: _knows(bed, "victim") and _knows(bed, "hand"), "both nodes know", 20)
        yield


def _knows(bed: Bed, name: str) -> bool:
    dumps = (bed.ztunnel(node) for node in (bed.here, bed.there))
    return all(any(each["name"] == name for each in dump["services"]) for dump in dumps)


@pytest.mark.parametrize("family", FAMILIES)
def test_claims_leave_everybody_where_they_were(bed: Bed, family: int) -> None:
    server = bed.address("server", family)
    with claimed(bed, STRICT), bed.wire(bed.there) as wire:
        eventually(lambda: bed.reach("stranger", "server", family) is not Reply.ANSWERED, "STRICT")
        for address in (server, VIPS[family], THIEF[family]):
            for _ in range(5):
                with bed.dial("client", address) as sock:
                    # The server saw the client itself, which plaintext from elsewhere would hide.
                    assert speak(sock).startswith(bed.address("client", family))
        assert wire.counts().marker_packets == 0
        assert bed.reach("stranger", "server", family) is not Reply.ANSWERED
        assert bed.served(bed.there)["server"]
    eventually(lambda: bed.control("/notes") == [], "the notes go with the claims", 20)


def test_the_notes_name_both_objects(bed: Bed) -> None:
    with claimed(bed):
        told = {
            (each["object"], each["message"].partition(" of ")[2]) for each in bed.control("/notes")
        }
    pairs = {(thief, owner.partition(":")[0].partition(" (")[0]) for thief, owner in told}
    assert {
        ("Service plain/cluster", "Pod mesh/server"),
        ("Service plain/twin", "Service mesh/victim"),
        ("Service plain/balancer", "Service mesh/victim"),
        ("Service plain/balancer", "Pod mesh/server"),
        ("Service plain/external", "Service mesh/victim"),
        ("Service plain/external", "Pod mesh/server"),
        ("EndpointSlice plain/hand-4", "Pod mesh/server"),
        ("EndpointSlice plain/server", "Pod mesh/server"),
    } <= pairs


def test_a_service_whose_endpoints_all_terminate_is_still_served(bed: Bed) -> None:
    def terminate(when: str | None) -> None:
        folder = bed.lab.manifests_folder
        manifests = Manifests.load(folder)
        file, document = manifests.find(Ref("Pod", "mesh", "server"))
        meta = document.value["metadata"]
        if when is None:
            meta.pop("deletionTimestamp", None)
        else:
            meta["deletionTimestamp"] = when
        document.replace(document.value)
        manifests.save(folder, {file})

    def healthy() -> bool:
        dump = bed.ztunnel(bed.here)
        (found,) = (each for each in dump["services"] if each["name"] == "victim")
        return all(each["healthy"] for each in found["endpoints"].values())

    with bed.policy(VICTIM):
        eventually(lambda: _knows(bed, "victim") and healthy(), "a healthy endpoint", 20)
        terminate("2026-11-27T05:00:00Z")
        try:
            eventually(lambda: not healthy(), "the endpoint is leaving", 20)
            for family in FAMILIES:
                assert [bed.ask("client", VIPS[family]) for _ in range(5)] == [Reply.ANSWERED] * 5
        finally:
            terminate(None)
        eventually(healthy, "the endpoint is back", 20)


@contextmanager
def host_port(bed: Bed, port: int) -> Iterator[None]:
    """`server` has this port of its node as well, as its kubelet would write it."""
    folder = bed.lab.manifests_folder
    node = bed.lab.store.load().node(bed.there).address

    def write(ports: list[dict[str, int]], addresses: list[str]) -> None:
        manifests = Manifests.load(folder)
        file, document = manifests.find(Ref("Pod", "mesh", "server"))
        document.value["spec"]["containers"][0]["ports"] = ports
        document.value["status"]["hostIPs"] = [{"ip": each} for each in addresses]
        document.replace(document.value)
        manifests.save(folder, {file})

    write([{"containerPort": 8080, "hostPort": port}], [node.v4, node.v6])
    try:
        eventually(lambda: _knows(bed, "server"), "both nodes know the host port", 20)
        yield
    finally:
        write([], [])
        eventually(lambda: not _knows(bed, "server"), "it is gone", 20)


def test_a_port_of_a_node_leads_captured_clients_to_the_pod_behind_it(bed: Bed) -> None:
    node = bed.lab.store.load().node(bed.there).address
    with bed.policy(STRICT), host_port(bed, 18080):
        eventually(lambda: bed.reach("stranger", "server") is not Reply.ANSWERED, "STRICT")
        with bed.wire(bed.there) as wire:
            for family, address in ((4, node.v4), (6, node.v6)):
                with bed.dial("client", address, 18080) as sock:
                    assert speak(sock).startswith(bed.address("client", family))
                # Nothing translates it here: a stranger meets the node, and so does another port.
                assert bed.ask("stranger", address, 18080) is Reply.UNREACHED
                assert bed.ask("client", address, 18081) is not Reply.ANSWERED
            assert wire.counts().marker_packets == 0
        (note,) = (e for e in bed.control("/notes") if e["reason"] == "host_port_strict")
        assert note["object"] == "Pod mesh/server"
