"""Addresses and services: who is made anew when one of them changes hands."""

from __future__ import annotations

from control.server.compile.mesh import KnownCaptures, Mesh
from control.server.compile.settings import Settings
from control.server.sources.objects import AnyObject, Key
from tests.support.manifests import objects, pod
from tests.support.mesh_worlds import AMBIENT, HOST_PORT, ON_HOST, WEB, node, service, slice_of

POD = "Kubernetes//Pod/shop/{}".format
TARGETS = "{{addresses: [10.1.0.{0}], targetRef: {{kind: Pod, name: p{0}}}}}"
WEB_KEY = "shop/web.shop.svc.cluster.local"


def applied(*texts: str) -> Mesh:
    mesh = Mesh(Settings(), KnownCaptures(frozenset()))
    mesh.apply(objects("".join(texts)).by_key())
    return mesh


def put(mesh: Mesh, text: str) -> set[str]:
    """Names of workloads and services that are news."""
    delta = mesh.apply(objects(text).by_key())
    return {*delta.workloads, *delta.services}


def gone(mesh: Mesh, kind: str, name: str) -> set[str]:
    changed: dict[Key, AnyObject | None] = {Key(kind, "shop", name): None}
    delta = mesh.apply(changed)
    return {*delta.workloads, *delta.services}


def pods(count: int, labels: str = WEB) -> str:
    return "".join(pod(f"p{at}", labels=labels, address=f"10.1.0.{at}") for at in range(1, count))


def test_one_endpoint_of_a_slice_is_news_to_its_pod_alone() -> None:
    ends = [TARGETS.format(at) for at in range(1, 9)]
    mesh = applied(pods(9), service("web"), slice_of("s", ", ".join(ends)))
    assert set(mesh.workloads[POD("p3")].services) == {WEB_KEY}
    del ends[2]
    assert put(mesh, slice_of("s", ", ".join(ends))) == {POD("p3")}
    assert not mesh.workloads[POD("p3")].services
    ends[0] = ends[0].replace("}}", "}, conditions: {ready: false}}")
    assert put(mesh, slice_of("s", ", ".join(ends))) == {POD("p1")}


def test_slices_take_the_place_of_the_selector_and_give_it_back() -> None:
    mesh = applied(pods(4), service("web"))
    assert all(WEB_KEY in mesh.workloads[POD(f"p{at}")].services for at in (1, 2, 3))
    assert put(mesh, slice_of("s", TARGETS.format(2))) == {POD("p1"), POD("p3")}
    assert [WEB_KEY in mesh.workloads[POD(f"p{at}")].services for at in (1, 2, 3)] == [
        False,
        True,
        False,
    ]
    assert gone(mesh, "EndpointSlice", "s") == {POD("p1"), POD("p3")}


def test_a_service_that_only_moves_is_no_news_to_its_pods() -> None:
    mesh = applied(pods(4), service("web"))
    assert put(mesh, service("web", more=", clusterIP: 10.3.0.1")) == {WEB_KEY}
    assert put(mesh, service("web", target="9090", more=", clusterIP: 10.3.0.1")) == {
        WEB_KEY,
        *(POD(f"p{at}") for at in (1, 2, 3)),
    }


def test_an_address_that_changes_hands_is_news_to_both() -> None:
    mesh = applied(pod("a"), pod("b"))
    assert mesh.workloads[POD("b")].addresses == ()
    assert gone(mesh, "Pod", "a") == {POD("a"), POD("b")}
    assert len(mesh.workloads[POD("b")].addresses) == 1
    assert mesh.notes == ()


def test_a_place_follows_its_slice_its_node_and_whoever_takes_the_address() -> None:
    mesh = applied(service("web", ""), slice_of("s", "{addresses: [10.9.9.9], nodeName: n1}"))
    (place,) = mesh.workloads
    assert put(mesh, node("n1", "a")) == {place}
    assert mesh.workloads[place].locality.zone == "a"
    assert put(mesh, pod("p", address="10.9.9.9")) == {place, POD("p")}
    assert set(mesh.workloads) == {POD("p")}
    assert set(mesh.workloads[POD("p")].services) == {WEB_KEY}
    assert gone(mesh, "Pod", "p") == {place, POD("p")}


def test_the_service_of_a_host_port_goes_with_its_pod_and_with_its_label() -> None:
    inside = pod("h", labels=AMBIENT, spec=HOST_PORT).replace(*ON_HOST)
    name = "shop/h.shop.hostport.cluster.local"
    mesh = applied(node("n1", "a"), inside)
    assert name in mesh.services
    assert put(mesh, inside.replace(AMBIENT, "")) == {name, POD("h")}
    assert put(mesh, inside) == {name, POD("h")}
    assert gone(mesh, "Pod", "h") == {name, POD("h")}
    assert not mesh.services
