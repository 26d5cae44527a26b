"""A client that asks for what it needs by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model.address import parse_address
from control.model.workload import NetworkAddress, OuterAddress
from control.server.compile.mesh import CompiledMesh
from control.server.xds.names import BadRequest
from control.server.xds.picker import ASKED_MAX
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient
from control.wire.types import ADDRESS_TYPE
from tests.support.mesh_cache import EMPTY
from tests.unit.control.server.xds.session_bench import (
    KEY,
    NODE,
    A,
    B,
    Bench,
    make_mesh,
    names,
    service,
    workload,
)


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
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([], (B.uid,)), "nothing leads to it any more"
    bench.change(make_mesh(workload("b", "v2"), services=(service(),)))
    assert bench.settle() == []


def test_on_demand_a_name_given_back_while_its_resource_changes_leaves_nothing_behind() -> None:
    """The client still takes the old version for the owner of its other name."""
    both = replace(A, addresses=(*A.addresses, parse_address("10.0.0.7")))
    bench = on_demand(make_mesh(both))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/10.0.0.97", "/10.0.0.7"]))
    bench.settle()
    bench.change(make_mesh(A))
    bench.tell(bench.client.unsubscribe(ADDRESS_TYPE, ["/10.0.0.97"]))
    (update,) = bench.settle()
    assert (names(update), update.removed) == ([], (A.uid,))


def test_on_demand_a_client_that_names_all_gives_names_back_after_a_reconnect() -> None:
    bench = on_demand(make_mesh(A))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/10.0.0.97"]))
    bench.settle()
    bench.open()
    bench.settle()
    bench.tell(bench.client.unsubscribe(ADDRESS_TYPE, ["/10.0.0.97"]))
    (update,) = bench.settle()
    assert update.removed == (A.uid,)


def test_on_demand_what_was_not_answered_before_the_stream_broke_is_answered_on_the_next() -> None:
    """Also where its owner is held already: nobody would wake who waits."""
    here = replace(A, node="n1")
    client = DeltaClient(NODE, [ADDRESS_TYPE], on_demand=[ADDRESS_TYPE])
    bench = Bench(make_mesh(here), client)
    assert [names(each) for each in bench.settle()] == [[A.uid]]
    bench.client.subscribe(ADDRESS_TYPE, ["/10.0.0.97"])  # lost with the stream
    bench.open()
    assert "/10.0.0.97" in [name for each in bench.settle() for name in each.removed]


def test_on_demand_brings_the_services_of_a_nodes_own_workloads_without_their_endpoints() -> None:
    here = replace(MEMBER, node="n1")
    other = replace(workload("o", services=(KEY,)), node="n2")
    client = DeltaClient(NODE, [ADDRESS_TYPE], on_demand=[ADDRESS_TYPE])
    bench = Bench(make_mesh(here, other, services=(service(),)), client)
    (update,) = bench.settle()
    assert set(names(update)) == {here.uid, KEY}


def test_on_demand_finds_a_service_by_an_outer_address_and_by_a_block_around_it() -> None:
    outer = OuterAddress("", parse_address("203.0.113.5"), (80,))
    block = NetworkAddress("", parse_address("198.51.100.0"), 24)
    made = replace(service(), outer_addresses=(outer,), addresses=(block,))
    bench = on_demand(make_mesh(services=(made,)))
    for asked in ("/203.0.113.5", "/198.51.100.77"):
        bench.tell(bench.client.subscribe(ADDRESS_TYPE, [asked]))
        (update,) = bench.settle()
        assert (names(update), update.removed) == ([KEY], (asked,))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, ["/198.51.101.77", "x/198.51.100.77"]))
    (update,) = bench.settle()
    assert names(update) == []


def test_on_demand_reconnects_without_resending() -> None:
    bench = on_demand(make_mesh(A, B))
    bench.tell(bench.client.subscribe(ADDRESS_TYPE, [A.uid, B.uid]))
    bench.settle()
    bench.cache.update(make_mesh(A, workload("b", "v2")))
    bench.open()
    assert [names(each) for each in bench.settle()] == [[B.uid]]


def test_names_are_bounded() -> None:
    bench = on_demand(EMPTY)
    many = [str(number) for number in range(ASKED_MAX + 1)]
    request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=many)
    with pytest.raises(BadRequest):
        bench.tell(request)
