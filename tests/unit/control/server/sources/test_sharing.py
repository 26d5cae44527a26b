"""Equal values are one, and long ones are not kept for that."""

from __future__ import annotations

from control.server.sources.objects import Owner
from control.server.sources.sharing import shared, shared_labels
from tests.support.manifests import objects, pod


def test_equal_values_are_one() -> None:
    assert shared(Owner("ReplicaSet", "web")) is shared(Owner("ReplicaSet", "web"))
    assert shared_labels([("a", "b")]) is shared_labels([("a", "b")])
    assert shared_labels([("a", "b")]) == {"a": "b"}
    assert shared_labels([]) == {}


def test_long_ones_are_not_kept() -> None:
    long = [("a", "b" * 2000)]
    assert shared_labels(long) == shared_labels(long)
    assert shared_labels(long) is not shared_labels(long)


def test_pods_of_one_kind_share_what_they_have_in_common() -> None:
    spec = "containers: [{ports: [{containerPort: 80}]}]"
    one, other = objects(
        pod("a", labels="app: web", spec=spec) + pod("b", labels="app: web", spec=spec)
    ).pods
    assert one.meta.labels is other.meta.labels
    assert one.ports is other.ports
    assert one.node is other.node
