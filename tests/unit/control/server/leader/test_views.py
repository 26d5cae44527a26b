"""The published mesh, as the leader's duties look at it."""

from __future__ import annotations

from pathlib import Path

from control.server.leader.views import Views
from tests.support.gateways import gateway, route, service
from tests.support.manifests import pod, policy
from tests.support.published import PublishedMesh

AMBIENT = "istio.io/dataplane-mode: ambient"


def namespace(name: str, labels: str = "") -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"


def test_namespaces_are_those_of_the_mesh_and_our_own(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    views = Views(mesh.publisher, "tulle-system")
    assert views.namespaces() == {"tulle-system"}
    mesh.publish(
        namespace("empty", AMBIENT),
        namespace("plain"),
        pod("a", "plain"),
        pod("b", "single", labels=AMBIENT, address="10.1.0.2"),
    )
    assert views.namespaces() == {"tulle-system", "empty", "single"}
    mesh.publish(namespace("plain"))
    assert views.namespaces() == {"tulle-system"}


def test_conditions_follow_the_mesh_and_are_made_once_a_change(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    views = Views(mesh.publisher, "tulle-system")
    mesh.publish(policy("{}"))
    first = views.conditions()
    assert [str(each) for each in first] == ["AuthorizationPolicy shop/p"]
    assert views.conditions() is first
    mesh.publish()
    assert views.conditions() == {}


def test_a_change_makes_the_conditions_of_what_it_is_about(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    views = Views(mesh.publisher, "tulle-system")
    texts = [policy("{}", name="web"), policy("{}", name="db", namespace="other")]
    mesh.publish(*texts)
    before = {target.name: each for target, each in views.conditions().items()}
    mesh.publish(*texts, pod(labels=AMBIENT))
    after = {target.name: each for target, each in views.conditions().items()}
    assert after["db"] is before["db"]
    assert after["web"][1].message == "applies to 1 workload in the mesh"


def test_routes_follow_the_gateways_and_are_made_once_a_change(tmp_path: Path) -> None:
    mesh = PublishedMesh(tmp_path)
    views = Views(mesh.publisher, "tulle-system")
    web = service("web", labels="istio.io/use-waypoint: way")
    mesh.publish(web, route("rules: [{}]"))
    ((target, (state,)),) = views.routes().items()
    assert (str(target), state.accepted.reason) == ("HTTPRoute shop/route", "Pending")
    assert views.routes() is views.routes()
    mesh.publish(web, route("rules: [{}]"), gateway())
    ((_, (state,)),) = views.routes().items()
    assert state.accepted.is_true
