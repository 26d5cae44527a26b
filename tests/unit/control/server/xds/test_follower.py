"""A client of a whole shelf: its place, what it holds other than that, and shared bytes."""

from __future__ import annotations

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.xds.follower import Behind, Follower
from control.server.xds.names import KeptNames
from control.server.xds.resource import make_entry
from control.server.xds.response import DeltaResponse
from control.server.xds.shelf import LOG_MIN, OLD, HeldVersions, Shelf
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from tests.unit.control.server.xds.test_shelf import STATES, Bench

HELD = st.dictionaries(st.sampled_from("abcdxyz"), st.sampled_from(["1", "2", "?"]))


def make_version(text: str) -> str:
    return make_entry("t", "", text.encode()).version if text != "?" else "?"


def take(follower: Follower, *, with_removed: bool = True) -> DeltaResponse:
    return follower.take(with_removed=with_removed)("own", Word.MORE)


def told(response: DeltaResponse, held: dict[str, str]) -> dict[str, str]:
    message = pb.DeltaDiscoveryResponse.FromString(response.data)
    left = {name: each for name, each in held.items() if name not in message.removed_resources}
    return left | {each.name: each.version for each in message.resources}


@given(STATES, HELD, STATES, st.booleans())
def test_whatever_a_client_comes_with_it_ends_with_what_there_is(
    now: dict[str, str], held: dict[str, str], later: dict[str, str], early: bool
) -> None:
    bench, names = Bench(), KeptNames()
    bench.become(now)
    held = {name: make_version(text) for name, text in held.items()}
    follower = Follower(bench.shelf, names, response_bytes_max=60)
    follower.take_over(held)
    if early and follower.due():
        held = told(take(follower), held)
        assert follower.held().keys() == held.keys()
    bench.become(later)
    assert follower.held_count == len(follower.held()) == len(held)
    while due := follower.due():
        assert due
        held = told(take(follower), held)
    assert held == bench.shelf.versions() == follower.held()
    assert names.size_bytes == 0
    assert not follower.has_news


@given(STATES, HELD, STATES, st.booleans(), st.booleans())
def test_those_who_come_with_one_list_end_with_what_there_is(
    now: dict[str, str], held: dict[str, str], later: dict[str, str], listens: bool, waits: bool
) -> None:
    """The second one after a change, the first one told before it or not."""
    bench = Bench()
    bench.become(now)
    listener = Follower(bench.shelf, KeptNames()) if listens else None
    brought = HeldVersions({name: make_version(text) for name, text in held.items()})
    ends: list[dict[str, str]] = []
    clients: list[Follower] = []
    names = [KeptNames(), KeptNames()]
    for number in range(2):
        clients.append(Follower(bench.shelf, names[number]))
        clients[-1].take_over(brought)
        ends.append(dict(brought))
        if number == 0:
            if not waits and clients[0].due():
                ends[0] = told(take(clients[0]), ends[0])
            bench.become(later)
    for number, each in enumerate(clients):
        while each.due():
            ends[number] = told(take(each), ends[number])
        assert ends[number] == bench.shelf.versions() == each.held()
        assert names[number].size_bytes == 0
    assert listener is None or listener.has_news == bool(bench.shelf.latest)


def test_what_is_found_about_a_list_goes_with_it() -> None:
    bench = Bench()
    bench.become({"a": "1", "b": "1"})
    brought = HeldVersions({"a": make_version("1"), "b": OLD, "gone": OLD})
    clients = [Follower(bench.shelf, KeptNames()) for _ in range(2)]
    for each in clients:
        each.take_over(brought)
    first, second = map(take, clients)
    assert first is second
    bench.become({"a": "1", "b": "2"})
    assert bench.shelf.place_of(brought)[1] is bench.shelf.place_of(brought)[1]
    known = weakref.ref(brought)
    del brought
    assert known() is None


def test_those_who_hold_the_same_are_told_the_same_bytes() -> None:
    bench = Bench()
    bench.become({"a": "1", "b": "1"})
    clients = [Follower(bench.shelf, KeptNames()) for _ in range(3)]
    clients[0].take_over(bench.shelf.versions())
    first, second = take(clients[1]), take(clients[2])
    assert first is second
    bench.become({"a": "2", "c": "1"})
    assert [each.estimate_bytes() for each in clients] == [clients[0].estimate_bytes()] * 3
    changes = [take(each) for each in clients]
    assert changes[0] is changes[1] is changes[2]
    assert (changes[0].added, changes[0].removed) == (2, 1)


def test_removed_names_that_are_held_back_are_told_later_and_once() -> None:
    bench = Bench()
    bench.become({"a": "1", "b": "1"})
    follower = Follower(bench.shelf, KeptNames())
    take(follower)
    bench.become({"a": "2"})
    response = take(follower, with_removed=False)
    assert (response.added, response.removed) == (1, 0)
    assert follower.held()["b"] == OLD
    assert list(follower.due().removed) == ["b"]
    assert not follower.due().added
    bench.become({"a": "2", "b": "1", "c": "1"})
    response = take(follower)
    assert (response.added, response.removed) == (2, 0), "it is back, and told again"
    assert not follower.due()


def test_a_client_that_is_left_behind_is_sent_away() -> None:
    bench = Bench()
    bench.become({"a": "1"})
    follower = Follower(bench.shelf, KeptNames())
    take(follower)
    bench.change(LOG_MIN + 100)
    with pytest.raises(Behind):
        follower.due()
    assert follower.pending_count == 1, "pages can be shown of it"


def test_a_shelf_forgets_those_who_left() -> None:
    shelf = Shelf("t")
    follower = Follower(shelf, KeptNames())
    assert len(shelf.places) == 1
    follower.close()
    assert len(shelf.places) == 0
