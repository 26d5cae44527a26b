"""References of routes: kinds, groups and namespaces that are not said."""

from __future__ import annotations

import pytest

from control.server.sources.route_specs import BackendRef, ParentRef, TargetRef
from tests.support.gateways import route
from tests.support.manifests import load, objects

GROUP = "gateway.networking.k8s.io"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: a}", ParentRef(TargetRef(GROUP, "Gateway", "shop", "a"))),
        ("{name: a, kind: Service}", ParentRef(TargetRef(GROUP, "Service", "shop", "a"))),
        ("{name: a, kind: Service, group: ''}", ParentRef(TargetRef("", "Service", "shop", "a"))),
        (
            "{name: a, namespace: b, sectionName: c, port: 80}",
            ParentRef(TargetRef(GROUP, "Gateway", "b", "a"), "c", 80),
        ),
    ],
)
def test_parents(text: str, expected: ParentRef) -> None:
    assert objects(route("rules: []", parent=text)).http_routes[0].spec.parents == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: a, port: 80}", BackendRef(TargetRef("", "Service", "shop", "a"), 80)),
        (
            "{name: a, port: 80, namespace: b, weight: 0}",
            BackendRef(TargetRef("", "Service", "b", "a"), 80, 0),
        ),
        (
            "{name: a, group: x.io, kind: Import}",
            BackendRef(TargetRef("x.io", "Import", "shop", "a")),
        ),
    ],
)
def test_backends(text: str, expected: BackendRef) -> None:
    (rule,) = objects(route(f"rules: [{{backendRefs: [{text}]}}]")).http_routes[0].spec.rules
    assert rule.backends == (expected,)


@pytest.mark.parametrize("text", ["{}", "{name: a, sectoin: b}", "{name: a, port: 70000}"])
def test_a_parent_that_is_wrong(text: str) -> None:
    assert len(load(route("rules: []", parent=text)).problems) == 1
