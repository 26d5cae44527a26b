from __future__ import annotations

from typing import Any

import pytest

from agent.cli.cluster.hands import changes, owner_of, paths

RULES = {"f:spec": {"f:rules": {}}}


def entry(manager: str, fields: dict[str, Any], **more: str) -> dict[str, Any]:
    time = "2026-11-27T20:00:00Z"
    return {"manager": manager, "operation": "Update", "fieldsV1": fields, "time": time, **more}


def policy(*entries: dict[str, Any], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries), "annotations": annotations}}


ARGO = entry("argocd-controller", {"f:spec": {"f:action": {}}})
EDIT = entry("kubectl-edit", RULES)


def test_a_change_beside_the_owner_is_told_with_field_writer_and_time() -> None:
    value = policy(ARGO, EDIT)
    assert owner_of(value) == "argocd-controller"
    assert changes(value) == ["spec.rules by kubectl-edit, 2026-11-27T20:00:00Z"]


@pytest.mark.parametrize(
    "value",
    [
        {"metadata": {}},
        policy(EDIT),  # nobody's
        policy(ARGO),
        policy(ARGO, entry("kubectl", {"f:spec": {"f:action": {}}})),  # the same value, twice
        policy(ARGO, entry("kube-controller-manager", RULES)),
        policy(ARGO, entry("anybody", {"f:status": {"f:conditions": {}}}, subresource="status")),
        policy(ARGO, entry("kube-autoscaler", {"f:spec": {"f:replicas": {}}}, subresource="scale")),
        policy(ARGO, entry("kubectl-label", {"f:metadata": {"f:labels": {"f:team": {}}}})),
        policy(ARGO, entry("kubectl-edit", {"f:metadata": {"f:finalizers": {}}})),
    ],
)
def test_nothing_is_told_of_what_is_nobodys_or_does_not_matter(value: dict[str, Any]) -> None:
    assert changes(value) == []


@pytest.mark.parametrize(
    ("mark", "owner"),
    [
        ("argocd.argoproj.io/tracking-id", "Argo CD"),
        ("kustomize.toolkit.fluxcd.io/name", "Flux"),
        ("meta.helm.sh/release-name", "Helm"),
    ],
)
def test_a_mark_names_the_owner_when_no_field_is_its_own_any_more(mark: str, owner: str) -> None:
    value = policy(EDIT, **{mark: "x"})
    assert owner_of(value) == owner
    assert len(changes(value)) == 1


def test_labels_of_the_mesh_count() -> None:
    fields = {"f:metadata": {"f:labels": {".": {}, "f:istio.io/dataplane-mode": {}, "f:a": {}}}}
    assert paths(fields) == ["metadata.labels.istio.io/dataplane-mode"]


def test_many_fields_are_cut_short() -> None:
    many = {"f:spec": {f"f:x{number}": {} for number in range(6)}}
    (told,) = changes(policy(ARGO, entry("me", many)))
    assert told.startswith("spec.x0, spec.x1, spec.x2 and 3 more by me")


def test_a_restart_by_kubectl_is_nobodys_fault() -> None:
    deep = {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}
    restart = {"f:spec": {"f:template": {"f:metadata": deep}}}
    assert changes(policy(ARGO, entry("kubectl-rollout", restart))) == []


def test_hostile_fields_are_no_trouble() -> None:
    assert changes(policy(ARGO, {"manager": None, "fieldsV1": None}, entry("x", {}))) == []
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"f:a": deep}
    assert paths({"f:spec": deep}) == ["spec.a.a.a.a.a"]
