"""Intents: the pods to capture, and the reason that people see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model.address import parse_address
from control.server.compile.pods import intent_of, pod_uid, word_of
from control.server.compile.settings import Settings
from tests.support.manifests import mesh, objects, pod, policy


def namespace(labels: str, name: str = "shop") -> str:
    return (
        f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
    )


AMBIENT, NONE = "istio.io/dataplane-mode: ambient", "istio.io/dataplane-mode: none"
OUR_AMBIENT, OUR_NONE = "tulle.io/dataplane-mode: ambient", "tulle.io/dataplane-mode: none"


@pytest.mark.parametrize(
    ("namespace_labels", "labels", "spec", "expected"),
    [
        ("", "", "", (False, "no label")),
        (AMBIENT, "", "", (True, "namespace label ambient")),
        (OUR_AMBIENT, "", "", (True, "namespace label ambient")),
        (AMBIENT, NONE, "", (False, "pod label none")),
        (AMBIENT, OUR_NONE, "", (False, "pod label none")),
        ("", AMBIENT, "", (True, "pod label ambient")),
        ("", OUR_AMBIENT, "", (True, "pod label ambient")),
        (NONE, AMBIENT, "", (True, "pod label ambient")),
        (f"{AMBIENT}, {OUR_NONE}", "", "", (False, "namespace label none")),
        ("", f"{OUR_AMBIENT}, {NONE}", "", (False, "pod label none")),
        (AMBIENT, "", "hostNetwork: true", (False, "host network")),
        ("istio.io/dataplane-mode: sidecar", "", "", (False, "no label")),
    ],
)
def test_enrolment(
    namespace_labels: str, labels: str, spec: str, expected: tuple[bool, str]
) -> None:
    (found,) = mesh(namespace(namespace_labels) + pod(labels=labels, spec=spec)).pods.values()
    assert (found.enrolled, found.reason) == expected


def test_a_mesh_that_is_leaving_enrols_nobody() -> None:
    text = namespace(AMBIENT) + pod("a") + pod("b", labels=AMBIENT)
    found = mesh(text, release_all=True).pods.values()
    assert {(each.enrolled, each.reason) for each in found} == {(False, "mesh release-all")}


def test_pods_of_a_mesh_that_is_leaving_go_after_its_policies() -> None:
    text = namespace(AMBIENT) + pod("a") + policy("{mtls: {mode: STRICT}}", "PeerAuthentication")
    found = mesh(text, release_all=True, keeps_pods=True)
    assert [each.enrolled for each in found.pods.values()] == [True]
    assert not found.policies


def test_a_mesh_that_is_leaving_closes_no_door_to_those_that_left_first() -> None:
    text = (
        namespace(AMBIENT)
        + pod("a")
        + "".join(
            f"---\napiVersion: security.istio.io/v1\nkind: {kind}\n"
            f"metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
            for kind, spec in (
                ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
                ("AuthorizationPolicy", "{selector: {matchLabels: {app: x}}, action: ALLOW}"),
            )
        )
    )
    assert len(mesh(text).policies) == 2
    assert not mesh(text, release_all=True).policies


def test_a_sidecar_keeps_its_pod_out() -> None:
    text = pod().replace(
        "namespace: shop", "annotations: {sidecar.istio.io/status: x}, namespace: shop"
    )
    (found,) = mesh(namespace(AMBIENT) + text).pods.values()
    assert (found.enrolled, found.reason) == (False, "sidecar")


@pytest.mark.parametrize("name", ["kube-system", "istio-system"])
def test_a_label_on_a_system_namespace_does_not_count_but_one_on_a_pod_does(name: str) -> None:
    found = mesh(
        namespace(AMBIENT, name) + pod("a", name) + pod("b", name, labels=AMBIENT)
    ).pods.values()
    assert {each.name: each.enrolled for each in found} == {"a": False, "b": True}


def test_a_pod_has_a_uid_that_stays_and_one_of_its_own() -> None:
    first, again = mesh(pod("a")).pods, mesh(pod("a")).pods
    assert list(first) == list(again)
    assert list(first) != list(mesh(pod("b")).pods)
    given = mesh(pod("a").replace("namespace: shop", "uid: given, namespace: shop")).pods
    assert list(given) == ["given"]


def test_a_finished_pod_is_nobodys_concern() -> None:
    assert mesh(pod().replace("Running", "Failed")).pods == {}


def test_a_pod_without_address_may_be_enrolled_before_it_starts() -> None:
    (found,) = mesh(
        namespace(AMBIENT) + pod().replace("Running, podIP: 10.1.0.1", "Pending")
    ).pods.values()
    assert (found.enrolled, found.addresses) == (True, ())


PATH_TUNNEL, PATH_DIRECT = "tulle.io/path: tunnel", "tulle.io/path: direct"


@pytest.mark.parametrize(
    ("namespace_labels", "labels", "always", "expected"),
    [
        (AMBIENT, "", False, (True, "")),
        (AMBIENT, "tulle.io/path: direct", False, (True, "")),
        (AMBIENT, "tulle.io/path: tunnel", False, (False, "pod tulle.io/path")),
        (AMBIENT, "tulle.io/path: tunel", False, (False, "pod tulle.io/path")),
        ("tulle.io/path: tunnel", AMBIENT, False, (False, "namespace tulle.io/path")),
        (PATH_TUNNEL, PATH_DIRECT, False, (False, "namespace tulle.io/path")),
        (AMBIENT, "tulle.io/path: direct", True, (False, "mesh always-tunnel")),
    ],
)
def test_who_keeps_a_pod_in_the_tunnel(
    namespace_labels: str, labels: str, always: bool, expected: tuple[bool, str]
) -> None:
    text = namespace(namespace_labels) + pod(labels=labels)
    (found,) = mesh(text, always_tunnel=always).pods.values()
    assert (found.direct, found.direct_reason) == expected


def test_an_annotation_keeps_a_pod_in_the_tunnel_as_well() -> None:
    text = pod().replace("namespace: shop", "annotations: {tulle.io/path: tunnel}, namespace: shop")
    (found,) = mesh(namespace(AMBIENT) + text).pods.values()
    assert not found.direct


PROBED = (
    "containers: [{livenessProbe: {httpGet: {port: 80}}, "
    "readinessProbe: {tcpSocket: {port: 9, host: h}}}]"
)


def test_a_nodes_agent_hears_of_the_ports_that_the_kubelet_probes() -> None:
    (found,) = mesh(namespace(AMBIENT) + pod(spec=PROBED)).pods.values()
    assert found.probe_ports == (80,)


def test_a_pod_outside_the_mesh_has_no_such_ports_and_no_note() -> None:
    found = mesh(pod(spec=PROBED))
    assert [each.probe_ports for each in found.pods.values()] == [()]
    assert found.notes == ()


def test_a_probe_that_the_kernel_cannot_recognise_is_noted() -> None:
    found = mesh(namespace(AMBIENT) + pod(spec=PROBED))
    (said,) = found.notes
    assert (said.object, said.reason) == ("Pod shop/web", "probe_unrecognised")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (namespace(AMBIENT), {"shop": True}),
        (namespace(""), {"shop": False}),
        (namespace(NONE), {"shop": False}),
        (namespace(AMBIENT, "kube-system"), {"kube-system": False}),
        (namespace("") + pod(labels=AMBIENT), {"shop": True}),
        (namespace(AMBIENT) + pod(labels=NONE), {"shop": True}),
        (
            namespace(AMBIENT, "kube-system") + pod("a", "kube-system", labels=AMBIENT),
            {"kube-system": True},
        ),
        (pod(), {"shop": False}),
        (pod("a", "one") + namespace(OUR_AMBIENT, "two"), {"one": False, "two": True}),
    ],
)
def test_a_namespace_enrols_if_any_pod_of_it_may_be_captured(
    text: str, expected: dict[str, bool]
) -> None:
    found = mesh(text).namespaces
    assert {name: each.enrols for name, each in found.items()} == expected


def test_a_node_hears_the_objects_addresses_though_it_reports_others() -> None:
    """Those of a pod on a host may be edited: its node follows, and reports the new ones then."""
    old, new = parse_address("10.0.0.1"), parse_address("10.0.0.2")
    found = objects(namespace(AMBIENT) + pod())
    (only,) = found.pods
    placed = replace(only, addresses=(old,), is_placed_by_node=True, stated_addresses=(new,))
    word = word_of(found.namespaces[0].meta)
    said = intent_of(placed, pod_uid(placed.meta), word, Settings())
    assert said.addresses == (new,)


HASH = "0123456789abcdef0123456789abcdef"


def mirror(name: str, uid: str, said: str = HASH, created: str = "2026-01-01T00:00:00Z") -> str:
    """A pod as the kubelet writes it for a static one."""
    meta = f"{{name: {name}, namespace: shop, uid: {uid}, creationTimestamp: '{created}'"
    return pod(name).replace(
        f"{{name: {name}, namespace: shop, labels: {{}}}}",
        f"{meta}, annotations: {{kubernetes.io/config.mirror: '{said}'}}}}",
    )


def test_a_static_pod_has_the_uid_that_its_node_knows_it_by() -> None:
    (found,) = mesh(namespace(AMBIENT) + mirror("web-n1", "u-1")).pods.values()
    assert (found.uid, found.enrolled) == (HASH, True)


@pytest.mark.parametrize("said", ["", "x", "5f5e2d1c-6d9c-4c1f-9f5d-0a8a5b1f7a11", HASH + "0"])
def test_no_pod_can_call_itself_by_the_uid_of_another_that_is_not_static(said: str) -> None:
    (found,) = mesh(mirror("web-n1", "u-1", said)).pods.values()
    assert found.uid == "u-1"


def test_of_two_mirrors_of_one_static_pod_the_older_is_true() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for first, second in (("a", "b"), ("b", "a")):
        text = mirror(first, "u-1", created=late) + mirror(second, "u-2", created=early)
        found = mesh(text).pods.values()
        assert {each.name: each.uid for each in found} == {first: "u-1", second: HASH}
