"""Changes that may void what the kernel was told, and those that certainly do not."""

from __future__ import annotations

import pytest

from ztunnel.mesh.entries import Entry, Op
from ztunnel.supervisor.stale import makes_stale, touched

SERVED = {("shop", "web")}


@pytest.mark.parametrize(
    ("op", "name", "stale"),
    [
        (Op.POLICY, "shop/p", True),
        (Op.REMOVE_POLICY, "elsewhere/p", True),
        (Op.REJECTED_POLICY, "shop/p", True),
        (Op.ADDRESS, "shop/web.shop.svc.cluster.local", True),  # a service
        (Op.REMOVE_ADDRESS, "far/db.far.svc.cluster.local", True),
        (Op.ADDRESS, "Kubernetes//Pod/shop/web", True),
        (Op.REMOVE_ADDRESS, "Kubernetes//Pod/shop/web", True),
        (Op.ADDRESS, "other-cluster/networking.istio.io/WorkloadEntry/shop/web", True),
        (Op.ADDRESS, "Kubernetes//Pod/shop/other", False),
        (Op.ADDRESS, "Kubernetes//Pod/far/web", False),
        (Op.REMOVE_ADDRESS, "Kubernetes//Pod/far/db", False),
        (Op.SNAPSHOT, "", False),
        (Op.KNOWN, "/10.0.0.1", False),
        (Op.UNKNOWN, "/10.0.0.1", False),
        (Op.NEW_SERVICE, "shop/web.shop.svc.cluster.local", False),
        (Op.ON_DEMAND, "", True),
        (Op.ALL, "", True),
    ],
)
def test_what_matters_to_pods_of_this_node(op: Op, name: str, stale: bool) -> None:
    assert makes_stale([Entry(op, name)], SERVED) is stale
    far = Entry(Op.ADDRESS, "Kubernetes//Pod/far/away")
    assert makes_stale([far, Entry(op, name), far], SERVED) is stale


def test_an_empty_batch_changes_nothing() -> None:
    assert not makes_stale([], SERVED)


def test_a_node_without_pods_hears_of_policies_and_services_alone() -> None:
    assert not makes_stale([Entry(Op.ADDRESS, "Kubernetes//Pod/shop/web")], set())
    assert makes_stale([Entry(Op.POLICY, "shop/p")], set())


FAR = Entry(Op.ADDRESS, "Kubernetes//Pod/far/away")
WEB = Entry(Op.REMOVE_ADDRESS, "other//Pod/shop/web")
SERVICE = Entry(Op.ADDRESS, "shop/web.shop.svc.cluster.local")


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ([], frozenset()),
        ([FAR, SERVICE, Entry(Op.SNAPSHOT), Entry(Op.KNOWN, "/10.0.0.1")], frozenset()),
        ([FAR, WEB, WEB], frozenset(SERVED)),
        ([WEB, Entry(Op.POLICY, "far/p")], None),
        ([Entry(Op.REMOVE_POLICY, "shop/p")], None),
        ([Entry(Op.ALL)], None),
    ],
)
def test_pods_of_ours_that_a_batch_touches(
    batch: list[Entry], found: frozenset[tuple[str, str]] | None
) -> None:
    assert touched(batch, SERVED) == found
