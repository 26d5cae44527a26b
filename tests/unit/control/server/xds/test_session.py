"""One client's stream: contents, moments and order of responses, and nothing sent twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import parse_address
from control.model.intent import Intent
from control.model.policy import Action, Policy, PolicyScope
from control.model.workload import NetworkAddress, Service, Workload
from control.server.compile.mesh import EMPTY, CompiledMesh
from control.server.xds import session as session_module
from control.server.xds.cache import Cache, frame, varint
from control.server.xds.session import BadRequest, DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo, Update, Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE

NODE = NodeInfo("ztunnel~x")
KEY = "ns/web.ns.svc"


def workload(name: str, revision: str = "", services: tuple[str, ...] = ()) -> Workload:
    address = parse_address(f"10.0.0.{ord(name[-1])}")
    return Workload(
        uid=f"c//Pod/ns/{name}",
        name=name,
        namespace="ns",
        addresses=(address,),
        canonical_revision=revision,
        services=dict.fromkeys(services, ()),
    )


def service() -> Service:
    return Service("web", "ns", "web.ns.svc", (NetworkAddress("", parse_address("10.9.0.1")),))


def policy(name: str) -> Policy:
    return Policy(name, "ns", PolicyScope.NAMESPACE, Action.DENY)


def make_mesh(
    *workloads: Workload, policies: tuple[Policy, ...] = (), services: tuple[Service, ...] = ()
) -> CompiledMesh:
    return replace(
        EMPTY,
        workloads={each.uid: each for each in workloads},
        services={each.key: each for each in services},
        policies={each.key: each for each in policies},
    )


class Bench:
    """A cache, a session and a client back to back, without a network."""

    def __init__(self, mesh: CompiledMesh, client: DeltaClient | None = None) -> None:
        self.cache = Cache()
        self.cache.update(mesh)
        self.client = client or DeltaClient(NODE, [ADDRESS_TYPE, AUTHORIZATION_TYPE])
        self.open()

    def open(self) -> None:
        self.session = DeltaSession(self.cache, "n1")
        for request in self.client.opening():
            self.tell(request)

    def tell(self, request: pb.DeltaDiscoveryRequest | None) -> None:
        assert request is not None
        self.session.receive(request)

    def change(self, mesh: CompiledMesh) -> None:
        self.session.changed(self.cache.update(mesh))

    def take(self) -> Update | None:
        response = self.session.take()
        return None if response is None else self.client.receive(response.data)

    def answer(self, update: Update, rejected: dict[str, str] | None = None) -> None:
        self.tell(self.client.acknowledge(update.type_url, update.nonce, rejected))

    def settle(self) -> list[Update]:
        """Everything there is to say, each acknowledged at once."""
        found = []
        while (update := self.take()) is not None:
            self.answer(update)
            found.append(update)
        return found


def names(update: Update | None) -> list[str]:
    assert update is not None
    return [each.name for each in update.added]


A, B = workload("a"), workload("b")


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


def on_demand(mesh: CompiledMesh) -> Bench:
    client = DeltaClient(NODE, [ADDRESS_TYPE], on_demand=[ADDRESS_TYPE])
    bench = Bench(mesh, client)
    assert [each.added for each in bench.settle()] == [()]
    return bench


MEMBER = workload("m", services=(KEY,))


def test_on_demand_answers_uid_service_and_address() -> None:
    bench = on_demand(make_mesh(A, MEMBER, services=(service(),)))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [A.uid]))
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([A.uid], ())
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/10.9.0.1"]))
    (update,) = bench.settle()
    assert set(names(update)) == {KEY, MEMBER.uid}
    assert update.removed == ("/10.9.0.1",), "who waits for this very name must be woken"
    assert {alias for each in update.added for alias in each.aliases} == {
        "/10.9.0.1",
        "/10.0.0.109",
    }
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/10.7.7.7", "x/y", "ns/none"]))
    (update,) = bench.settle()
    assert set(update.removed) == {"/10.7.7.7", "x/y", "ns/none"}


def test_on_demand_answers_an_address_whose_owner_is_known_already() -> None:
    bench = on_demand(make_mesh(A))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [A.uid]))
    bench.settle()
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/10.0.0.97"]))
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([A.uid], ("/10.0.0.97",))
    bench.change(make_mesh(workload("a", "v2")))
    assert names(bench.settle()[0]) == [A.uid], "it is still followed"


def test_on_demand_brings_a_nodes_own_workloads_unasked() -> None:
    """Istio's ztunnel waits for those of its pods before it serves them, and asks for no name."""
    here, elsewhere = replace(A, node="n1"), replace(B, node="n2")
    client = DeltaClient(NODE, [ADDRESS_TYPE], on_demand=[ADDRESS_TYPE])
    bench = Bench(make_mesh(here, elsewhere), client)
    assert [names(each) for each in bench.settle()] == [[A.uid]]
    late = replace(workload("late"), node="n1")
    bench.change(make_mesh(here, elsewhere, late))
    assert [names(each) for each in bench.settle()] == [[late.uid]]
    changed = replace(late, canonical_revision="v2")
    bench.change(make_mesh(here, elsewhere, changed))
    assert [names(each) for each in bench.settle()] == [[late.uid]]
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [B.uid]))
    assert names(bench.settle()[0]) == [B.uid]
    bench.tell(bench.client.unsubscribe(ADDRESS_TYPE, [B.uid]))
    bench.settle()
    bench.change(make_mesh(replace(here, node="n2"), elsewhere, changed))
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([], (A.uid,))


def test_on_demand_reconnects_with_its_nodes_workloads_as_they_are_now() -> None:
    here = replace(A, node="n1")
    client = DeltaClient(NODE, [ADDRESS_TYPE], on_demand=[ADDRESS_TYPE])
    bench = Bench(make_mesh(here), client)
    bench.settle()
    bench.open()
    assert [names(each) for each in bench.settle()] == [[]]
    bench.cache.update(make_mesh(replace(workload("new"), node="n1")))
    bench.open()
    (update,) = bench.settle()
    assert (names(update), update.removed) == (["c//Pod/ns/new"], (A.uid,))


def test_on_demand_answers_a_name_again_when_asked_again() -> None:
    bench = on_demand(make_mesh(A))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [A.uid]))
    bench.settle()
    again = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=[A.uid])
    bench.tell(again)
    assert names(bench.settle()[0]) == [A.uid]


def test_on_demand_follows_what_was_asked_and_nothing_else() -> None:
    bench = on_demand(make_mesh(A, services=(service(),)))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [KEY, "/10.0.0.98"]))
    bench.settle()
    bench.change(make_mesh(workload("a", "v2"), MEMBER, services=(service(),)))
    assert names(bench.settle()[0]) == [MEMBER.uid]
    bench.change(make_mesh(B, services=(service(),)))
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([B.uid], (MEMBER.uid,))
    bench.tell(bench.client.unsubscribe(ADDRESS_TYPE, ["/10.0.0.98"]))
    bench.change(make_mesh(workload("b", "v2"), services=(service(),)))
    assert bench.settle() == []


def test_on_demand_reconnects_without_resending() -> None:
    bench = on_demand(make_mesh(A, B))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [A.uid, B.uid]))
    bench.settle()
    bench.cache.update(make_mesh(A, workload("b", "v2")))
    bench.open()
    assert [names(each) for each in bench.settle()] == [[B.uid]]


def test_names_are_bounded() -> None:
    bench = on_demand(EMPTY)
    many = [str(number) for number in range(session_module.ASKED_MAX + 1)]
    request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=many)
    with pytest.raises(BadRequest):
        bench.tell(request)


def test_a_response_is_cut_at_its_bound_and_continued_after_the_ack() -> None:
    several = [workload(name, "v" * 1000) for name in ("a", "b", "d")]
    bench = Bench(make_mesh(*several), DeltaClient(NODE, [ADDRESS_TYPE]))
    bench.session = DeltaSession(bench.cache, "n1", response_bytes_max=2500)
    bench.tell(bench.client.opening()[0])
    assert [len(each.added) for each in bench.settle()] == [2, 1]


def test_two_sessions_share_the_same_bytes() -> None:
    cache = Cache()
    cache.update(make_mesh(A, B))
    responses = []
    for _ in range(2):
        session = DeltaSession(cache, "n1")
        session.receive(DeltaClient(NODE, [ADDRESS_TYPE]).opening()[0])
        responses.append(session.take())
    assert responses[0] == responses[1]


def test_an_unchanged_mesh_encodes_nothing() -> None:
    cache = Cache()
    cache.update(make_mesh(A))
    before = cache.entries(ADDRESS_TYPE)[A.uid]
    assert cache.update(make_mesh(workload("a"))) == {}
    assert cache.entries(ADDRESS_TYPE)[A.uid] is before


@given(st.integers(0, 2**40), st.binary(max_size=300))
def test_framing_is_protobufs(number: int, payload: bytes) -> None:
    message = pb.DeltaDiscoveryResponse.FromString(frame(6, b"n" * (number % 300)))
    assert message.removed_resources == ["n" * (number % 300)]
    decoded = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(varint(number)))
    assert decoded == number


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
