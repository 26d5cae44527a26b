"""One client's stream: contents, moments and order of responses, and nothing sent twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.intent import Intent
from control.server.compile.mesh import CompiledMesh
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, Update, Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache
from tests.unit.control.server.xds.session_bench import (
    NODE,
    A,
    B,
    Bench,
    make_mesh,
    names,
    policy,
    workload,
)


def test_the_first_response_of_each_type_is_sent_even_when_empty() -> None:
    bench = Bench(EMPTY)
    assert [each.type_url for each in bench.settle()] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    assert bench.client.synced
    assert bench.take() is None


def test_a_type_we_do_not_serve_gets_one_empty_response() -> None:
    bench = Bench(make_mesh(A), DeltaClient(NODE, ["type.googleapis.com/istio.workload.Workload"]))
    (update,) = bench.settle()
    assert update.added == ()


def test_only_what_changed_is_sent() -> None:
    bench = Bench(make_mesh(A, B))
    bench.settle()
    bench.change(make_mesh(workload("a", "v2"), B))
    (update,) = bench.settle()
    assert names(update) == [A.uid]
    bench.change(make_mesh(B))
    (update,) = bench.settle()
    assert (update.added, update.removed) == ((), (A.uid,))
    bench.change(make_mesh(B))
    assert bench.settle() == []


def test_one_response_is_in_flight_and_changes_meanwhile_become_one() -> None:
    bench = Bench(make_mesh(A), DeltaClient(NODE, [ADDRESS_TYPE]))
    first = bench.take()
    assert first is not None
    bench.change(make_mesh(workload("a", "v2"), B))
    bench.change(make_mesh(workload("a", "v3"), B))
    bench.change(make_mesh(workload("a", "v4")))
    assert bench.take() is None
    bench.answer(first)
    second = bench.take()
    assert names(second) == [A.uid]
    assert second is not None
    assert second.removed == ()


def test_a_change_that_is_taken_back_is_never_sent() -> None:
    bench = Bench(make_mesh(A), DeltaClient(NODE, [ADDRESS_TYPE]))
    first = bench.take()
    assert first is not None
    bench.change(make_mesh(workload("a", "v2")))
    bench.change(make_mesh(A))
    bench.answer(first)
    assert bench.take() is None


def test_a_stale_nonce_is_passed_over() -> None:
    bench = Bench(make_mesh(A), DeltaClient(NODE, [ADDRESS_TYPE]))
    bench.settle()
    bench.change(make_mesh(B))
    current = bench.take()
    assert current is not None
    bench.tell(pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, response_nonce="1"))
    bench.change(make_mesh(A))
    assert bench.take() is None
    bench.answer(current)
    assert names(bench.take()) == [A.uid]


def test_a_rejected_resource_is_not_sent_again_until_it_changes() -> None:
    bench = Bench(make_mesh(A, B), DeltaClient(NODE, [ADDRESS_TYPE]))
    first = bench.take()
    assert first is not None
    bench.answer(first, {A.uid: "bad"})
    assert bench.session.types[ADDRESS_TYPE].nacks == 1
    assert bench.take() is None
    bench.change(make_mesh(workload("a", "v2"), B))
    assert names(bench.take()) == [A.uid]


def test_a_reconnect_tells_removals_and_changes_only() -> None:
    bench = Bench(make_mesh(A, B, workload("d")))
    bench.settle()
    bench.cache.update(make_mesh(workload("a", "v2"), B))
    bench.open()
    update = next(each for each in bench.settle() if each.type_url == ADDRESS_TYPE)
    assert (names(update), update.removed) == ([A.uid], ("c//Pod/ns/d",))


def test_policies_go_before_addresses_and_their_removal_after() -> None:
    bench = Bench(make_mesh(A))
    bench.settle()
    bench.change(make_mesh(workload("a", "v2"), policies=(policy("p"),)))
    assert [each.type_url for each in bench.settle()] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    bench.change(make_mesh(workload("a", "v3")))
    assert [each.type_url for each in bench.settle()] == [ADDRESS_TYPE, AUTHORIZATION_TYPE]


def test_an_address_waits_while_a_policy_cannot_be_sent_yet() -> None:
    bench = Bench(make_mesh(A, policies=(policy("p"),)))
    first, second = bench.take(), bench.take()
    assert first is not None
    assert second is not None
    bench.answer(second)  # addresses are free, the policies' response is still in flight
    bench.change(make_mesh(workload("a", "v2"), policies=(policy("p"), policy("q"))))
    assert bench.take() is None
    bench.answer(first)
    assert [each.type_url for each in bench.settle()] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]


def test_a_new_policy_is_not_held_up_by_an_old_ones_removal() -> None:
    bench = Bench(make_mesh(A, policies=(policy("old"),)))
    bench.settle()
    bench.change(make_mesh(workload("a", "v2"), policies=(policy("new"),)))
    first, second, third = bench.settle()
    assert (names(first), first.removed) == (["ns/new"], ())
    assert names(second) == [A.uid]
    assert third.removed == ("ns/old",)


def test_pods_are_shown_to_their_node_only() -> None:
    here = Intent("u1", "a", "ns", "sa", "n1", (), True, "r")
    there = replace(here, uid="u2", node="n2")
    mesh = replace(EMPTY, pods={"u1": here, "u2": there})
    bench = Bench(mesh, DeltaClient(NODE, [POD_TYPE]))
    assert names(bench.settle()[0]) == ["u1"]
    moved = replace(EMPTY, pods={"u1": replace(here, node="n2"), "u2": there})
    bench.change(moved)
    (update,) = bench.settle()
    assert update.removed == ("u1",)


def test_a_response_is_cut_at_its_bound_and_continued_after_the_ack() -> None:
    several = [workload(name, "v" * 1000) for name in ("a", "b", "d")]
    bench = Bench(make_mesh(*several), DeltaClient(NODE, [ADDRESS_TYPE]))
    bench.session = DeltaSession(NodeView(bench.cache, "n1", response_bytes_max=2500))
    bench.tell(bench.client.opening()[0])
    assert [len(each.added) for each in bench.settle()] == [2, 1]


def test_two_sessions_share_the_same_bytes() -> None:
    cache = MeshCache()
    cache.update(make_mesh(A, B))
    responses = []
    for _ in range(2):
        session = DeltaSession(NodeView(cache, "n1"))
        session.receive(DeltaClient(NODE, [ADDRESS_TYPE]).opening()[0])
        responses.append(session.take())
    assert responses[0] == responses[1]


def test_an_unchanged_mesh_encodes_nothing() -> None:
    cache = MeshCache()
    cache.update(make_mesh(A))
    before = cache.entries(ADDRESS_TYPE)[A.uid]
    assert cache.update(make_mesh(workload("a"))) == {}
    assert cache.entries(ADDRESS_TYPE)[A.uid] is before


MESHES = st.lists(st.tuples(st.sampled_from("abd"), st.sampled_from(["v1", "v2"])), max_size=4).map(
    lambda pairs: make_mesh(*(workload(name, revision) for name, revision in pairs))
)


@settings(max_examples=40)
@given(st.lists(MESHES, min_size=1, max_size=5), st.lists(st.booleans(), max_size=10))
def test_whatever_happens_the_client_ends_with_the_truth(
    meshes: list[CompiledMesh], moves: list[bool]
) -> None:
    bench = Bench(meshes[0])
    waiting: list[Update] = []
    for index, mesh in enumerate(meshes):
        bench.change(mesh)
        for send in moves[index::3]:
            if send and (update := bench.take()) is not None:
                waiting.append(update)
            elif waiting:
                bench.answer(waiting.pop(0))
    for update in waiting:
        bench.answer(update)
    bench.settle()
    expected = {name: entry.version for name, entry in bench.cache.entries(ADDRESS_TYPE).items()}
    assert dict(bench.client.held(ADDRESS_TYPE)) == expected


def test_whole_is_said_of_states_that_the_cache_has_and_of_no_others() -> None:
    """Changes, responses and late answers in any order."""
    rng = random.Random(9)
    said: Counter[tuple[Word, bool]] = Counter()
    for _ in range(100):
        bench = Bench(EMPTY)
        unanswered: list[pb.DeltaDiscoveryRequest] = []
        for _ in range(40):
            step = rng.choice(("change", "take", "take", "answer"))
            if step == "change":
                bench.change(
                    make_mesh(
                        *(workload(each, rng.choice("12")) for each in "ab" if rng.random() < 0.6),
                        policies=tuple(policy(each) for each in "pq" if rng.random() < 0.6),
                    )
                )
            elif step == "answer" and unanswered:
                bench.tell(unanswered.pop(0))
            elif step == "take" and (update := bench.take()) is not None:
                client = bench.client
                unanswered.append(client.acknowledge(update.type_url, update.nonce))
                whole = client.synced and all(
                    client.held(url)
                    == {name: each.version for name, each in bench.cache.entries(url).items()}
                    for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE)
                )
                said[update.word, whole] += 1
    assert said.keys() == {(Word.WHOLE, True), (Word.MORE, False)}
    assert min(said.values()) > 100
