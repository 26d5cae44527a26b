"""Uids by address, claim and service: one or several, in order, and none once they are gone."""

from __future__ import annotations

from typing import Any

import pytest

from control.kit.errors import WireError
from control.model.workload import Workload
from control.wire import workload_pb2 as pb
from control.wire.convert import resource_to_wire
from tests.support.engine.meshes import at, key, pod
from ztunnel.mesh.workloads import WorkloadIndex, WorkloadKeys, claim, keys_of

WEB = {key("web"): ()}


def keys(value: Workload) -> WorkloadKeys:
    return keys_of(resource_to_wire(value).workload)


def web(name: str = "one", address: str = "10.0.0.1", **fields: Any) -> Workload:
    return pod(name, address, services=WEB, **fields)


def index(*values: Workload) -> WorkloadIndex:
    made = WorkloadIndex()
    for each in values:
        made.put(each.uid, keys(each))
    return made


def members(found: WorkloadIndex) -> list[tuple[str, ...]]:
    return [uids for _, uids in found.members(key("web"))]


def test_a_workload_is_found_by_each_of_its_keys() -> None:
    one = pod("one", "10.0.0.1", "fd00::1", services=WEB)
    found = index(one)
    assert found.at("", at("10.0.0.1")) == found.at("", at("fd00::1")) == (one.uid,)
    assert found.at("far", at("10.0.0.1")) == ()
    assert found.claimed(claim("shop", "one", "one")) == (one.uid,)
    assert members(found) == [(one.uid,)]
    assert list(found.members("other")) == []


def test_whoever_routes_nothing_keeps_claims_alone_and_none_is_left() -> None:
    one = web("one")
    found = WorkloadIndex(claims_only=True)
    found.put(one.uid, keys(one))
    assert found.claimed(claim("shop", "one", "one")) == (one.uid,)
    assert found.at("", at("10.0.0.1")) == ()
    assert members(found) == []
    found.drop(one.uid, keys(one))
    assert found.claimed(claim("shop", "one", "one")) == ()


def test_several_at_one_key_come_in_the_order_in_which_they_were_heard_of() -> None:
    one, two, three = (web(name) for name in ("one", "two", "three"))
    found = index(one, two, three)
    assert found.at("", at("10.0.0.1")) == (one.uid, two.uid, three.uid)
    found.put(one.uid, keys(one))
    assert found.at("", at("10.0.0.1")) == (two.uid, three.uid, one.uid)
    assert members(found) == [(two.uid, three.uid, one.uid)]


def test_heard_of_twice_is_still_one() -> None:
    found = index(web(), web())
    assert found.at("", at("10.0.0.1")) == (web().uid,)
    found.drop(web().uid, keys(web()))
    assert found.at("", at("10.0.0.1")) == ()


def test_pods_that_differ_in_what_matters_are_members_apart() -> None:
    here, there = web("here", node="n1"), web("there", node="n2")
    found = index(here, there)
    assert sorted(members(found)) == [(here.uid,), (there.uid,)]
    assert {group.node for group, _ in found.members(key("web"))} == {"n1", "n2"}


@pytest.mark.parametrize("order", [1, -1])
def test_nothing_is_left_when_all_have_gone(order: int) -> None:
    values = [web("one"), web("two"), web("far", network="far"), pod("bare", "fd00::1")]
    found = index(*values)
    for each in values[::order]:
        found.drop(each.uid, keys(each))
    for network, address in (("", "10.0.0.1"), ("far", "10.0.0.1"), ("", "fd00::1")):
        assert found.at(network, at(address)) == ()
    assert members(found) == []
    assert found.claimed(claim("shop", "one", "one")) == ()


def test_one_that_was_never_there_may_go() -> None:
    found = index(web("one"))
    found.drop(web("two").uid, keys(web("two")))
    assert found.at("", at("10.0.0.1")) == (web("one").uid,)


def test_a_pod_without_an_account_claims_the_default_one() -> None:
    bare = pod("one", service_account="")
    assert index(bare).claimed(claim("shop", "one", "default")) == (bare.uid,)


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(WireError):
        keys_of(pb.Workload(uid="u", addresses=[b"\x0a\x00"]))


def test_the_policies_of_a_workload_are_part_of_its_keys() -> None:
    found = keys(pod("one", authorization_policies=("shop/p",)))
    assert (found.namespace, found.policies) == ("shop", ("shop/p",))
