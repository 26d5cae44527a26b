"""Paths of the API, as in the recordings."""

from __future__ import annotations

import pytest

from control.kube import resources
from control.kube.resources import Resource


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (resources.PODS.path(), "/api/v1/pods"),
        (resources.PODS.path("shop"), "/api/v1/namespaces/shop/pods"),
        (resources.PODS.path("shop", "web", "status"), "/api/v1/namespaces/shop/pods/web/status"),
        (resources.NODES.path(name="kn1"), "/api/v1/nodes/kn1"),
        (resources.NODES.path("ignored", "kn1"), "/api/v1/nodes/kn1"),
        (
            resources.AUTHORIZATION_POLICIES.path("shop", "a/b"),
            "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/a%2Fb",
        ),
    ],
)
def test_a_path(found: str, path: str) -> None:
    assert found == path


def test_an_object_of_a_namespaced_kind_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="a namespace is missing"):
        resources.PODS.path(name="web")


def test_every_resource_names_its_api_version() -> None:
    found = {each.kind: each for each in vars(resources).values() if isinstance(each, Resource)}
    assert found["Pod"].api_version == "v1"
    assert found["Lease"].api_version == "coordination.k8s.io/v1"
