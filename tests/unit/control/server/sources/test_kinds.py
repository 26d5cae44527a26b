"""Kinds of objects: read, passed over in silence, or refused because they look like a slip."""

from __future__ import annotations

import pytest

from control.server.sources.kinds import KINDS, ObjectKind, find_kind
from control.server.sources.problem import UnknownKind, WrongApiVersion
from control.server.sources.reader import Reader
from control.server.sources.yaml_text import read_documents


def look(api_version: str, kind: str) -> ObjectKind | None:
    text = "".join(
        f"{key}: {value}\n" for key, value in (("apiVersion", api_version), ("kind", kind)) if value
    )
    (document,) = read_documents((text + "metadata: {name: x}\n").encode())
    return find_kind(Reader(document.value))


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [(version, name) for name, kind in KINDS.items() for version in kind.api_versions],
)
def test_each_kind_is_read_in_each_of_its_versions(api_version: str, kind: str) -> None:
    assert look(api_version, kind) is KINDS[kind]


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("v1", "ConfigMap"),
        ("apps/v1", "Deployment"),
        ("serving.knative.dev/v1", "Service"),  # another maker's Service
        ("security.istio.io/v1", "RequestAuthentication"),
        ("example.org/v1", "Anything"),
    ],
)
def test_what_means_nothing_to_a_mesh_is_passed_over(api_version: str, kind: str) -> None:
    assert look(api_version, kind) is None


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("v2", "Pod"),
        ("security.istio.io/v2", "AuthorizationPolicy"),
        ("example.org/v1", "AuthorizationPolicy"),  # policies are nobody else's
        ("discovery.k8s.io/v1beta1", "EndpointSlice"),
    ],
)
def test_a_known_kind_of_another_version_is_told_its_own(api_version: str, kind: str) -> None:
    with pytest.raises(WrongApiVersion, match=KINDS[kind].api_versions[0]):
        look(api_version, kind)


@pytest.mark.parametrize(
    ("api_version", "kind", "hint"),
    [
        ("v1", "Namespaces", "did you mean Namespace?"),
        ("v1", "Whatever", "unknown kind 'Whatever' of v1"),
        ("security.istio.io/v1", "AuthorisationPolicy", "did you mean AuthorizationPolicy?"),
        ("security.istio.io/v1", "NewPolicy", "unknown kind"),  # somebody may rely on it
        ("example.org/v1", "AuthorizationPolicies", "unknown kind"),
        ("", "Pod", "apiVersion is missing"),
        ("v1", "", "kind is missing"),
    ],
)
def test_what_looks_like_a_slip_is_refused(api_version: str, kind: str, hint: str) -> None:
    with pytest.raises(UnknownKind) as refused:
        look(api_version, kind)
    assert hint in str(refused.value)
