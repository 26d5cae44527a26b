"""Policies by scope, and the substitute for one that cannot be understood: it denies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from control.kit.errors import WireError
from control.model.policy import Action, Policy, PolicyScope, Rule
from control.wire import security_pb2 as pb
from control.wire.convert_policy import policy_to_wire
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.policies import PolicyBook, substitute_for


def policy(
    name: str, scope: PolicyScope = PolicyScope.NAMESPACE, namespace: str = "shop"
) -> Policy:
    return Policy(name, namespace, scope, Action.ALLOW, (Rule(),))


def raw(value: Policy) -> bytes:
    return policy_to_wire(value).SerializeToString()


def book(*policies: Policy) -> PolicyBook:
    made = PolicyBook()
    for each in policies:
        made.put(each.key, raw(each))
    return made


EVERYWHERE = policy("everywhere", PolicyScope.GLOBAL, "istio-system")
OF_SHOP = policy("of-shop")
NAMED = policy("named", PolicyScope.WORKLOAD_SELECTOR)


def test_those_of_the_mesh_the_namespace_and_the_named_ones_apply() -> None:
    found = book(EVERYWHERE, OF_SHOP, NAMED)
    assert found.policies("shop", ()) == (EVERYWHERE, OF_SHOP)
    assert found.policies("shop", (NAMED.key,)) == (EVERYWHERE, OF_SHOP, NAMED)
    assert found.policies("other", ()) == (EVERYWHERE,)
    assert found.policies("other", (NAMED.key,)) == (EVERYWHERE, NAMED)


def test_one_that_is_named_and_in_scope_applies_once() -> None:
    assert book(OF_SHOP).policies("shop", (OF_SHOP.key,)) == (OF_SHOP,)


def test_a_name_that_nobody_has_sent_is_counted() -> None:
    found = book(OF_SHOP)
    assert found.policies("shop", ("shop/absent",)) == (OF_SHOP,)
    assert found.unknown == 1


@pytest.mark.parametrize("scope", [PolicyScope.GLOBAL, PolicyScope.WORKLOAD_SELECTOR])
def test_a_policy_that_changes_its_scope_leaves_the_old_one(scope: PolicyScope) -> None:
    found = book(OF_SHOP)
    assert found.policies("shop", ()) == (OF_SHOP,)
    moved = replace(OF_SHOP, scope=scope)
    found.put(moved.key, raw(moved))
    is_everywhere = scope is PolicyScope.GLOBAL
    assert found.policies("other", ()) == ((moved,) if is_everywhere else ())
    assert found.policies("shop", ()) == ((moved,) if is_everywhere else ())
    assert len(found) == 1


def test_answers_follow_every_change() -> None:
    found = book(EVERYWHERE)
    assert found.policies("shop", ()) == (EVERYWHERE,)
    found.put(OF_SHOP.key, raw(OF_SHOP))
    assert found.policies("shop", ()) == (EVERYWHERE, OF_SHOP)
    assert found.drop(EVERYWHERE.key)
    assert not found.drop(EVERYWHERE.key)
    assert found.policies("shop", ()) == (OF_SHOP,)


@pytest.mark.parametrize("bad", [b"\xff", raw(policy("another-name"))])
def test_a_message_that_makes_no_sense_changes_nothing(bad: bytes) -> None:
    found = book(OF_SHOP)
    with pytest.raises(WireError):
        found.put(OF_SHOP.key, bad)
    assert found.get(OF_SHOP.key) == OF_SHOP


def test_the_last_good_version_stays_in_force() -> None:
    found = book(OF_SHOP)
    assert not found.deny_instead(OF_SHOP.key, b"\xff")
    assert found.policies("shop", ()) == (OF_SHOP,)
    assert list(found.entries_before()) == [Entry(Op.POLICY, OF_SHOP.key, raw(OF_SHOP))]


def test_without_a_good_version_a_substitute_denies_until_one_comes() -> None:
    found = PolicyBook()
    assert found.deny_instead("shop/p", b"\xff")
    (substitute,) = found.policies("shop", ())
    assert (substitute.action, substitute.rules) == (Action.DENY, (Rule(),))
    assert list(found.entries_before()) == [Entry(Op.REJECTED_POLICY, "shop/p", b"\xff")]
    assert found.deny_instead("shop/p", b"\xfe"), "another refused one takes its place"
    good = policy("p")
    found.put(good.key, raw(good))
    assert found.policies("shop", ()) == (good,)
    assert not found.deny_instead("shop/p", b"\xff")


def test_the_substitute_of_a_dry_run_does_nothing_and_takes_an_older_ones_place() -> None:
    dry = pb.Authorization(name="p", namespace="shop", dry_run=True).SerializeToString()
    found = PolicyBook()
    for before in (b"", b"\xff"):
        if before:
            assert found.deny_instead("shop/p", before)
        assert found.deny_instead("shop/p", dry)
        there = found.in_force("shop", ("shop/p",))
        assert there.missing == (), "who names it need not wait for it"
        found_dry = found.policies("shop", ("shop/p",))
        assert [(each.dry_run, each.rules) for each in found_dry] == [(True, ())]


@pytest.mark.parametrize(
    ("message", "scope"),
    [
        (b"\xff", PolicyScope.NAMESPACE),
        (b"", PolicyScope.NAMESPACE),
        (pb.Authorization(name="p", scope=pb.GLOBAL).SerializeToString(), PolicyScope.GLOBAL),
        (b"\x0a\x01p\x18\x63", PolicyScope.NAMESPACE),  # scope 99
    ],
    ids=["no message", "empty", "global", "a scope from the future"],
)
def test_a_substitute_reaches_as_far_as_the_policy_could_have(
    message: bytes, scope: PolicyScope
) -> None:
    found = substitute_for("shop/p", message)
    assert found == Policy("p", "shop", scope, Action.DENY, (Rule(),))


# A field of a newer control plane, behind any message.
UNKNOWN_FIELD = b"\x72\x05alice"
ANY = policy("p")


def allow(scope: PolicyScope, *, dry_run: bool = False) -> Policy:
    return replace(ANY, scope=scope, dry_run=dry_run)


def after(good: Policy, refused: Policy) -> PolicyBook:
    found = book(good)
    found.deny_instead(ANY.key, raw(refused) + UNKNOWN_FIELD)
    return found


def places(scope: PolicyScope) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Workloads that a policy of this scope reaches: their namespace and the names they carry."""
    if scope is PolicyScope.WORKLOAD_SELECTOR:
        yield "shop", (ANY.key,)
        return
    yield "shop", ()
    if scope is PolicyScope.GLOBAL:
        yield "other", ()


@pytest.mark.parametrize(("before", "now"), list(product(PolicyScope, PolicyScope)))
def test_a_refused_version_never_leaves_a_workload_open_that_it_would_reach(
    before: PolicyScope, now: PolicyScope
) -> None:
    found = after(allow(before), allow(now))
    for namespace, named in places(now):
        assert found.policies(namespace, named), (namespace, named)


@pytest.mark.parametrize("scope", PolicyScope)
def test_the_last_good_version_of_the_same_scope_stays(scope: PolicyScope) -> None:
    assert after(allow(scope), allow(scope)).get(ANY.key) == allow(scope)


def test_a_dry_run_does_not_stand_for_a_policy_that_is_meant() -> None:
    scope = PolicyScope.NAMESPACE
    held = after(allow(scope, dry_run=True), allow(scope)).get(ANY.key)
    assert held is not None
    assert held.action is Action.DENY
    assert not held.dry_run


def test_a_refused_dry_run_leaves_what_is_in_force() -> None:
    scope = PolicyScope.NAMESPACE
    assert after(allow(scope), allow(scope, dry_run=True)).get(ANY.key) == allow(scope)
