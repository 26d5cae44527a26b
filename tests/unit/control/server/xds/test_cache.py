"""The cache: one message a resource, encoded once, and names resolved on demand."""

from __future__ import annotations

from dataclasses import replace

from control.model.address import parse_address
from control.model.intent import Intent
from control.model.policy import Action, Policy, PolicyScope
from control.model.workload import NetworkAddress, Service, Workload
from control.server.compile.mesh import CompiledMesh
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache

WEB = Service("web", "ns", "web.ns.svc", (NetworkAddress("", parse_address("10.9.0.1")),))
A = Workload(
    uid="c//Pod/ns/a",
    name="a",
    namespace="ns",
    addresses=(parse_address("10.0.0.1"), parse_address("fd00::1")),
    services={WEB.key: ()},
)
B = replace(A, uid="c//Pod/ns/b", name="b", addresses=(parse_address("10.0.0.2"),), services={})
NO = Policy("no", "ns", PolicyScope.NAMESPACE, Action.DENY)
INTENT = Intent("u1", "a", "ns", "sa", "n1", (), True, "r")


def mesh(
    *workloads: Workload,
    services: tuple[Service, ...] = (),
    policies: tuple[Policy, ...] = (),
    pods: tuple[Intent, ...] = (),
) -> CompiledMesh:
    return replace(
        EMPTY,
        workloads={each.uid: each for each in workloads},
        services={each.key: each for each in services},
        policies={each.key: each for each in policies},
        pods={each.uid: each for each in pods},
    )


def test_an_update_says_what_changed_and_nothing_else() -> None:
    cache = MeshCache()
    whole = mesh(A, B, services=(WEB,), policies=(NO,), pods=(INTENT,))
    assert cache.update(whole) == {
        ADDRESS_TYPE: {A.uid, B.uid, WEB.key},
        AUTHORIZATION_TYPE: {NO.key},
        POD_TYPE: {"u1"},
    }
    assert cache.update(whole) == {}
    kept = cache.entries(ADDRESS_TYPE)[B.uid]
    changed = mesh(replace(A, canonical_revision="v2"), B, policies=(NO,), pods=(INTENT,))
    assert cache.update(changed) == {ADDRESS_TYPE: {A.uid, WEB.key}}
    assert cache.entries(ADDRESS_TYPE)[B.uid] is kept, "not encoded again"


def test_an_equal_message_of_another_value_is_no_change() -> None:
    """The version is a hash of the bytes: what a client would see the same it is not sent."""
    cache = MeshCache()
    cache.update(mesh(A))
    assert cache.update(mesh(replace(A, services={WEB.key: (), "x/y": ()}))) != {}
    assert cache.update(mesh(replace(A, services={"x/y": (), WEB.key: ()}))) == {}


def test_a_pod_that_moves_is_news_to_both_nodes() -> None:
    cache = MeshCache()
    cache.update(mesh(pods=(INTENT,)))
    assert cache.entries(POD_TYPE)["u1"].node == "n1"
    assert cache.update(mesh(pods=(replace(INTENT, node="n2"),))) == {POD_TYPE: {"u1"}}
    assert cache.entries(POD_TYPE)["u1"].node == "n2"


def test_names_on_demand() -> None:
    cache = MeshCache()
    cache.update(mesh(A, B, services=(WEB,)))
    assert cache.resolve(A.uid) == (A.uid,)
    assert cache.resolve("/10.0.0.1") == cache.resolve("/fd00::1") == (A.uid,)
    assert cache.resolve(WEB.key) == (WEB.key, A.uid), "a service comes with its endpoints"
    assert cache.resolve("/10.9.0.1") == (WEB.key, A.uid)
    assert cache.resolve("/10.0.0.9") == ()
    cache.update(mesh(B))
    assert cache.resolve("/10.0.0.1") == ()


def test_an_index_that_is_made_while_resources_change_is_the_one_of_now() -> None:
    first = mesh(A, B, services=(WEB,))
    moved = replace(B, addresses=(parse_address("10.0.0.3"),), node="n2", services={WEB.key: ()})
    new = replace(A, uid="c//Pod/ns/new", addresses=(parse_address("10.0.0.4"),))
    for taken in range(1, 4):
        for last in (mesh(A, moved, new, services=(WEB,)), mesh(moved), mesh(A, B)):
            cache, fresh = MeshCache(), MeshCache()
            cache.update(first)
            steps = cache.index_steps()
            for _ in range(taken):
                next(steps, None)
            cache.update(last)
            assert cache.has_index or taken < 3
            assert sum(1 for _ in cache.index_steps()) <= 3 - taken
            fresh.update(last)
            for name in ("/10.0.0.1", "/10.0.0.2", "/10.0.0.3", "/10.0.0.4", "/10.9.0.1", WEB.key):
                assert set(cache.resolve(name)) == set(fresh.resolve(name))
            assert cache.own("n2") == fresh.own("n2")
