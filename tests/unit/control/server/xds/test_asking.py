"""Clients that come back with sums: asked about what differs, and told that and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.server.xds.asking import ASKED_MAX, Asking
from control.server.xds.follower import Follower
from control.server.xds.names import KeptNames
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.server.xds.shelf import HeldVersions
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, Word
from control.wire.sums import (
    ALL_BUCKETS,
    SUMS_KEY,
    entries_in,
    sums_of,
    sums_to_text,
)
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.support.mesh_cache import MeshCache
from tests.unit.control.server.xds.session_bench import (
    NODE,
    A,
    Bench,
    make_mesh,
    names,
    policy,
    workload,
)
from tests.unit.control.server.xds.test_follower import HELD, make_version, take, told
from tests.unit.control.server.xds.test_shelf import STATES
from tests.unit.control.server.xds.test_shelf import Bench as ShelfBench

TYPES = [ADDRESS_TYPE, AUTHORIZATION_TYPE]


@given(STATES, HELD, STATES, STATES, st.booleans(), st.booleans())
def test_whatever_a_client_comes_with_and_whatever_changes_it_ends_with_what_there_is(
    now: dict[str, str],
    held: dict[str, str],
    meanwhile: dict[str, str],
    later: dict[str, str],
    known: bool,
    whole: bool,
) -> None:
    """`known`: the answer is one that others have given as well; `whole`: to everything."""
    bench, kept = ShelfBench(), KeptNames()
    bench.become(now)
    held = {name: make_version(text) for name, text in held.items()}
    ends = []
    for _ in range(2):
        asking = Asking(bench.shelf, sums_of(held))
        if whole:
            asking.asked = ALL_BUCKETS
        bench.become(meanwhile)
        brought = entries_in(held, asking.asked)
        answer = HeldVersions(brought) if known else brought
        follower = Follower(bench.shelf, kept, response_bytes_max=60)
        follower.start_from(*asking.answered(answer), is_shared=known)
        asking.close()
        assert follower.held() == held | {
            name: version
            for name, version in follower.held().items()
            if version == "-" or version == ""  # held in a version that is not kept
        }
        assert follower.held().keys() == held.keys()
        ends.append((follower, dict(held)))
    bench.become(later)
    for follower, end in ends:
        while follower.due():
            end = told(take(follower), end)
        assert end == bench.shelf.versions() == follower.held()
    assert kept.size_bytes == 0
    for follower, _ in ends:
        follower.close()
    assert not bench.shelf.places


def test_answers_that_are_the_same_share_what_was_found_out() -> None:
    bench = ShelfBench()
    bench.become({"a": "1", "b": "1"})
    held = {"a": make_version("1"), "b": make_version("2"), "x": "?"}
    asking = [Asking(bench.shelf, sums_of(held)) for _ in range(2)]
    answer = HeldVersions(entries_in(held, asking[0].asked))
    assert answer.keys() == {"b", "x"}
    places = [each.answered(answer) for each in asking]
    assert places[0][1] is places[1][1]
    bench.become({"a": "2", "b": "1"})
    third = Asking(bench.shelf, sums_of(held))
    assert third.answered(HeldVersions(entries_in(held, third.asked)))[1] is not places[0][1]


def test_if_most_differs_everything_is_asked_for() -> None:
    bench = ShelfBench()
    bench.become({f"n{number}": "1" for number in range(4 * ASKED_MAX)})
    assert Asking(bench.shelf, sums_of({})).asked == ALL_BUCKETS


def make_bench(*several: str) -> Bench:
    """A node that has a mesh of these pods and a policy, by name and revision."""
    mesh = make_mesh(*(workload(each[0], each[1:]) for each in several), policies=(policy("p"),))
    bench = Bench(mesh, DeltaClient(NODE, TYPES, sums_from=1))
    bench.settle()
    return bench


def test_a_client_that_has_everything_is_asked_about_nothing_and_told_so() -> None:
    bench = make_bench("a1", "b1")
    bench.open()
    found = bench.settle()
    assert sorted(each.asked is None for each in found) == [False, False, True, True]
    assert not any(each.added or each.removed for each in found)
    assert [each.word for each in found] == [Word.MORE] * 3 + [Word.WHOLE]


def test_a_client_is_told_what_differs_policies_before_addresses() -> None:
    bench = make_bench("a1", "b1", "d1")
    new = (policy("p"), policy("q"))
    bench.cache.update(make_mesh(workload("a", "2"), workload("b", "1"), policies=new))
    bench.open()
    questions = [bench.take(), bench.take()]
    assert [each.type_url for each in questions if each] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    assert bench.take() is None
    for each in reversed(questions):  # addresses are answered first, and wait
        assert each is not None
        bench.answer(each)
        if each.type_url == ADDRESS_TYPE:
            assert bench.take() is None
    policies, addresses = bench.settle()
    assert names(policies) == ["ns/q"]
    assert (names(addresses), addresses.removed) == ([A.uid], ("c//Pod/ns/d",))
    assert addresses.word is Word.WHOLE


def test_a_removed_policy_waits_until_it_is_known_which_addresses_name_it() -> None:
    bench = make_bench("a1")
    bench.cache.update(make_mesh(workload("a", "2")))
    bench.open()
    order = [(each.type_url, len(each.added), len(each.removed)) for each in bench.settle()]
    assert order.index((ADDRESS_TYPE, 1, 0)) < order.index((AUTHORIZATION_TYPE, 0, 1))


def opening(text: str) -> pb.DeltaDiscoveryRequest:
    request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE)
    request.node.metadata.fields[SUMS_KEY].string_value = text
    return request


@pytest.mark.parametrize("text", ["", "?", "AAAA", sums_to_text(sums_of({}))[:-4]])
def test_sums_that_are_none_are_refused(text: str) -> None:
    """Or a client would keep what is gone."""
    with pytest.raises(WireError):
        DeltaSession(NodeView(MeshCache(), "n1")).receive(opening(text))


def test_nobody_asks_by_name_before_he_has_answered() -> None:
    session = DeltaSession(NodeView(MeshCache(), "n1"))
    session.receive(opening(sums_to_text(sums_of({}))))
    request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_unsubscribe=["*"])
    with pytest.raises(WireError):
        session.receive(request)
