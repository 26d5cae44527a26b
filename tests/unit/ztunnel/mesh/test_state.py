from __future__ import annotations

import random
import string
from dataclasses import replace

import pytest

from control.model.address import CidrBlock, parse_endpoint
from control.model.policy import Action, Connection, Deny, Permit, Policy, PolicyScope, Rule, decide
from control.model.workload import NetworkMode, Visibility, WorkloadStatus
from control.wire import security_pb2, workload_pb2
from tests.support.engine.meshes import (
    at,
    endpoints_of,
    entry,
    key,
    mesh,
    pod,
    service,
    spiffe,
    vip,
)
from ztunnel.mesh.entries import CHUNK_ENTRIES_MAX, Entry, Op
from ztunnel.mesh.state import Changed, State
from ztunnel.mesh.workloads import claim

WEB = {key("web"): ()}


def policy(name: str, scope: PolicyScope = PolicyScope.WORKLOAD_SELECTOR) -> Policy:
    return Policy(name, "shop", scope, Action.ALLOW, (Rule(),))


def test_a_workload_is_found_by_each_of_its_keys() -> None:
    web = pod("web", "10.0.0.2", "fd00::2", services=WEB)
    state = mesh(web)
    assert state.workload(web.uid) == web
    assert state.workload_at("", at("10.0.0.2")) == web
    assert state.workload_at("", at("fd00::2")) == web
    assert state.workload_at("far", at("10.0.0.2")) is None
    assert state.local_workload("shop", "web", "web") == web
    assert endpoints_of(state, key("web")) == (web,)


def test_a_pod_without_an_address_is_known_by_its_claim() -> None:
    start = replace(pod("web", "10.0.0.2"), addresses=())
    state = mesh(start)
    assert state.local_workload("shop", "web", "web") == start
    changed = state.apply([entry(pod("web", "10.0.0.2"))])
    assert changed.addresses
    assert state.workload_at("", at("10.0.0.2")) == pod("web", "10.0.0.2")


def test_an_update_moves_every_key_and_a_removal_leaves_none() -> None:
    web = pod("web", "10.0.0.2", services=WEB)
    state = mesh(web)
    assert endpoints_of(state, key("web")) == (web,)
    moved = replace(web, addresses=(at("10.0.0.3"),), services={}, service_account="other")
    state.apply([entry(moved)])
    assert state.workload_at("", at("10.0.0.2")) is None
    assert state.workload_at("", at("10.0.0.3")) == moved
    assert state.local_workload("shop", "web", "web") is None
    assert endpoints_of(state, key("web")) == ()
    gone = state.apply([Entry(Op.REMOVE_ADDRESS, web.uid)])
    claims = frozenset({claim("shop", "web", "other")})
    assert gone == Changed(addresses=True, claims=claims, moved=(web.uid,))
    assert state.workload_at("", at("10.0.0.3")) is None
    assert state.apply([Entry(Op.REMOVE_ADDRESS, web.uid)]) == Changed()


def test_status_changes_reach_the_endpoints() -> None:
    web = pod("web", "10.0.0.2", services=WEB)
    state = mesh(web)
    before = state.edition(key("web"))
    state.apply([entry(replace(web, status=WorkloadStatus.UNHEALTHY))])
    assert endpoints_of(state, key("web"))[0].status is WorkloadStatus.UNHEALTHY
    assert state.edition(key("web")) is not before


def test_while_an_address_changes_hands_the_newer_pod_has_it() -> None:
    old, new = pod("old", "10.0.0.2"), pod("new", "10.0.0.2")
    state = mesh(old, new)
    assert state.workload_at("", at("10.0.0.2")) == new
    state.apply([Entry(Op.REMOVE_ADDRESS, old.uid)])
    assert state.workload_at("", at("10.0.0.2")) == new


def test_one_host_network_workload_is_known_several_are_not() -> None:
    one = pod("one", "192.168.0.1", network_mode=NetworkMode.HOST_NETWORK)
    two = pod("two", "192.168.0.1", network_mode=NetworkMode.HOST_NETWORK)
    assert mesh(one).workload_at("", at("192.168.0.1")) == one
    assert mesh(one, two).workload_at("", at("192.168.0.1")) is None


def test_our_own_node_and_cluster_win_a_claim() -> None:
    ours = pod("web", "10.0.0.2", node="n1", uid="b", cluster_id="one")
    theirs = pod("web", "10.0.0.3", node="n2", uid="a", cluster_id="two")
    for order in ((ours, theirs), (theirs, ours)):
        assert mesh(*order, node="n1").local_workload("shop", "web", "web") == ours
        assert mesh(*order, cluster_id="two").local_workload("shop", "web", "web") == theirs


def test_who_wins_a_vip() -> None:
    mine = service("mine", "10.1.0.1", namespace="shop", canonical=False)
    kube = service("kube", "10.1.0.1", namespace="other")
    entry_ = service("entry", "10.1.0.1", namespace="third", canonical=False)
    state = mesh(entry_, kube, mine)
    found = [state.service_at("", at("10.1.0.1"), ns) for ns in ("shop", "nowhere", "third")]
    assert [each.name for each in found if each] == ["mine", "kube", "entry"]


def test_blocks_of_addresses() -> None:
    wide = service("wide", "10.0.0.0/8")
    narrow = service("narrow", "10.2.0.0/16", namespace="other")
    far = service("far", addresses=(vip("10.0.0.0/8", "far"),))
    exact = service("exact", "10.2.0.1", "10.2.0.9/32")
    state = mesh(wide, narrow, far, exact)

    def at_vip(text: str, namespace: str) -> str | None:
        found = state.service_at("", at(text), namespace)
        return found.name if found else None

    assert at_vip("10.2.0.1", "x") == "exact"
    assert at_vip("10.2.0.9", "x") == "exact"
    assert at_vip("10.2.0.2", "x") == "narrow"  # the longer prefix
    assert at_vip("10.2.0.2", "shop") == "wide"  # the client's own namespace
    assert at_vip("11.0.0.1", "shop") is None
    state.apply([Entry(Op.REMOVE_ADDRESS, narrow.key)])
    assert at_vip("10.2.0.2", "x") == "wide"


def test_a_private_service_lets_the_public_one_be_seen() -> None:
    private = service("private", "10.1.0.1", visibility=Visibility.NAMESPACE)
    public = service("public", "10.1.0.1", namespace="other")
    state = mesh(private, public)
    assert state.service_at("", at("10.1.0.1"), "shop") == private
    assert state.service_at("", at("10.1.0.1"), "third") == public
    assert state.service_named(private.hostname, "third") is None


def test_policies_by_scope_and_name() -> None:
    everywhere = policy("g", PolicyScope.GLOBAL)
    here = policy("ns", PolicyScope.NAMESPACE)
    there = replace(here, name="there", namespace="other")
    named, unnamed = policy("named"), policy("unnamed")
    web = pod("web", authorization_policies=("shop/named", "shop/nobody-knows"))
    state = mesh(everywhere, here, there, named, unnamed, web)
    assert state.policies_for(web) == (everywhere, here, named)
    assert state.in_force(web) is state.in_force(web)
    assert state.unknown_policies == 1
    state.apply([Entry(Op.REMOVE_POLICY, "shop/ns")])
    assert state.policies_for(web) == (everywhere, named)


def test_a_policy_that_moves_scope_leaves_the_old_one() -> None:
    state = mesh(policy("p", PolicyScope.GLOBAL))
    state.apply([entry(policy("p", PolicyScope.NAMESPACE))])
    assert state.policies_for(pod("web", namespace="other")) == ()
    assert len(state.policies_for(pod("web"))) == 1


def test_what_changed_is_told() -> None:
    web = pod("web", "10.0.0.2")
    state = mesh(web)
    before = state.generation
    assert state.apply([entry(replace(web, capacity=3))]) == Changed(addresses=True)
    named = replace(web, authorization_policies=("shop/p",))
    claims = frozenset({claim("shop", "web", "web")})
    assert state.apply([entry(named)]) == Changed(addresses=True, claims=claims)
    assert state.apply([entry(policy("p"))]) == Changed(policies=True)
    assert state.apply([entry(policy("p"))]) == Changed()
    assert state.apply([]) == Changed()
    assert state.generation == before + 3
    both = replace(named, addresses=(at("10.0.0.2"), at("fd00::2")))
    assert state.apply([entry(both)]) == Changed(addresses=True)
    assert state.apply([entry(named)]) == Changed(addresses=True, moved=(web.uid,))


def unreadable(name: str, scope: PolicyScope, *, dry_run: bool = False) -> Entry:
    message = security_pb2.Authorization(
        name=name, namespace="shop", scope=scope.name, dry_run=dry_run
    )
    match = message.rules.add().clauses.add().matches.add()
    match.extensions.add(name="from.the.future")
    return Entry(Op.POLICY, f"shop/{name}", message.SerializeToString())


def verdict(state: State, **fields: object) -> Permit | Deny:
    web = pod("web", **fields)
    connection = Connection(spiffe("x"), at("10.0.0.1"), at("10.0.0.2"), 80)
    return decide(state.policies_for(web), connection)


@pytest.mark.parametrize(
    ("bad", "denied", "open_"),
    [
        (unreadable("p", PolicyScope.GLOBAL), [{}, {"namespace": "other"}], []),
        (unreadable("p", PolicyScope.NAMESPACE), [{}], [{"namespace": "other"}]),
        (
            unreadable("p", PolicyScope.WORKLOAD_SELECTOR),
            [{"authorization_policies": ("shop/p",)}],
            [{}],
        ),
        (Entry(Op.POLICY, "shop/p", b"\xff\xff"), [{}], [{"namespace": "other"}]),
        (Entry(Op.REJECTED_POLICY, "shop/p"), [{}], [{"namespace": "other"}]),
        (unreadable("p", PolicyScope.GLOBAL, dry_run=True), [], [{}]),
    ],
)
def test_a_policy_nobody_understands_denies_all_it_could_reach(
    bad: Entry, denied: list[dict[str, object]], open_: list[dict[str, object]]
) -> None:
    state = mesh()
    state.apply([bad])
    for fields in denied:
        assert verdict(state, **fields) == Deny("shop/p")
    for fields in open_:
        assert isinstance(verdict(state, **fields), Permit)
    state.apply([entry(policy("p", PolicyScope.NAMESPACE))])
    assert isinstance(verdict(state), Permit)


def test_a_bad_version_leaves_the_last_good_one() -> None:
    state = mesh(policy("p", PolicyScope.NAMESPACE))
    state.apply([unreadable("p", PolicyScope.NAMESPACE)])
    assert isinstance(verdict(state), Permit)
    assert set(state.take_rejected()) == {"shop/p"}
    assert state.take_rejected() == {}


def test_a_bad_address_is_rejected_and_the_old_one_stays() -> None:
    web = pod("web", "10.0.0.2")
    state = mesh(web, strict=True)
    message = workload_pb2.Address()
    message.workload.uid = web.uid
    message.workload.tunnel_protocol = workload_pb2.LEGACY_ISTIO_MTLS
    bad = Entry(Op.ADDRESS, web.uid, message.SerializeToString())
    other = Entry(Op.ADDRESS, "another", entry(web).body)
    junk = Entry(Op.ADDRESS, "junk", b"\xff")
    assert state.apply([bad, other, junk, entry(pod("good", "10.0.0.3"))]).addresses
    assert set(state.take_rejected()) == {web.uid, "another", "junk"}
    assert state.workload(web.uid) == web
    assert state.has(pod("good").uid)


def test_a_worker_drops_what_turns_out_bad_when_used() -> None:
    message = workload_pb2.Address()
    message.workload.uid = "w"
    message.workload.tunnel_protocol = workload_pb2.LEGACY_ISTIO_MTLS
    message.workload.addresses.append(at("10.0.0.2"))
    state = mesh()
    state.apply([Entry(Op.ADDRESS, "w", message.SerializeToString())])
    assert state.workload_at("", at("10.0.0.2")) is None
    assert state.counts()["workloads"] == 0


def test_an_address_that_two_pods_left_is_nobodys() -> None:
    state = mesh(pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), pod("c", "10.0.0.1"))
    for name in "abc":
        state.apply([Entry(Op.REMOVE_ADDRESS, pod(name).uid)])
    assert state.workload_at("", at("10.0.0.1")) is None
    state.apply([entry(pod("d", "10.0.0.1"))])
    found = state.workload_at("", at("10.0.0.1"))
    assert found is not None
    assert found.name == "d"


def test_answers_are_kept_until_their_service_or_an_endpoint_changes() -> None:
    web = pod("web", "10.0.0.2", services=WEB)
    state = mesh(web, service("web", "10.1.0.1"), service("other", "10.1.0.2"))
    question = (key("web"), 80)
    state.remember(question, "answer")
    state.apply([entry(pod("stranger", "10.0.0.3")), entry(service("other", "10.1.0.3"))])
    assert state.recall(question) == "answer"
    for changed in (service("web", "10.1.0.9"), pod("web2", "10.0.0.4", services=WEB), web):
        state.remember(question, "answer")
        state.apply([entry(changed)])
        assert state.recall(question) is None, changed
    state.remember(question, "answer")
    state.apply([entry(pod("web", "10.0.0.2"))])  # it leaves the service
    assert state.recall(question) is None
    state.remember(question, "answer")
    state.apply([Entry(Op.REMOVE_ADDRESS, pod("web2").uid)])
    assert state.recall(question) is None


def test_a_snapshot_rebuilds_the_same_state() -> None:
    web = pod("web", "10.0.0.2", services=WEB, authorization_policies=("shop/p",))
    state = mesh(web, service("web", "10.1.0.1"), policy("p"))
    state.apply([unreadable("bad", PolicyScope.NAMESPACE)])
    copy = State()
    copy.apply(state.snapshot())
    assert copy.synced
    assert list(copy.workloads()) == list(state.workloads())
    assert list(copy.services()) == list(state.services())
    assert copy.policies_for(web) == state.policies_for(web)
    assert isinstance(verdict(copy), Deny)


def test_indexes_agree_with_a_plain_search_under_random_changes() -> None:
    rng = random.Random(3)
    state = mesh()
    truth: dict[str, object] = {}
    for _ in range(400):
        name = rng.choice(string.ascii_lowercase[:8])
        web = pod(name, f"10.0.0.{rng.randrange(4)}", services=WEB if rng.random() < 0.5 else {})
        if rng.random() < 0.3:
            state.apply([Entry(Op.REMOVE_ADDRESS, web.uid)])
            truth.pop(web.uid, None)
        else:
            state.apply([entry(web)])
            truth[web.uid] = web
        expected = {each.uid for each in truth.values() if each.services}  # type: ignore[attr-defined]
        assert {each.uid for each in endpoints_of(state, key("web"))} == expected
        for number in range(4):
            found = state.workload_at("", at(f"10.0.0.{number}"))
            owners = {
                uid
                for uid, each in truth.items()
                if at(f"10.0.0.{number}") in each.addresses  # type: ignore[attr-defined]
            }
            assert (found.uid in owners) if found else not owners


def test_a_block_and_an_endpoint_are_values() -> None:
    assert at("10.2.3.4") in CidrBlock(at("10.2.0.0"), 16)
    assert str(parse_endpoint("[::ffff:10.0.0.1]:80")) == "10.0.0.1:80"
    assert CHUNK_ENTRIES_MAX <= 256
