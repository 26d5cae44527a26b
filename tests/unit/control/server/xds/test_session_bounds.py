"""Bounds of what one stream makes the control plane keep: types, names, versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.workload import Workload
from control.server.callers.refusals import CallRefusal
from control.server.compile.mesh import CompiledMesh
from control.server.xds.cache import Cache
from control.server.xds.follower import CHEAP_MAX
from control.server.xds.names import NAME_CHARS_MAX, NAME_COST_BYTES, BadRequest
from control.server.xds.node_view import NodeView
from control.server.xds.picker import Picker
from control.server.xds.session import FOREIGN_TYPES_MAX, TYPE_CHARS_MAX, DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache

NAMES = tuple("abcdef")


def make_mesh(names: frozenset[str], revision: str = "") -> CompiledMesh:
    return replace(
        EMPTY,
        workloads={
            name: Workload(name, name, "ns", addresses=(), canonical_revision=revision)
            for name in names
        },
    )


def started(names: str = "") -> tuple[Cache, DeltaSession]:
    cache = MeshCache()
    cache.update(make_mesh(frozenset(names)))
    return cache, DeltaSession(NodeView(cache, "n1"))


def request(
    type_url: str = ADDRESS_TYPE,
    subscribe: tuple[str, ...] = (),
    unsubscribe: tuple[str, ...] = (),
    **versions: str,
) -> pb.DeltaDiscoveryRequest:
    return pb.DeltaDiscoveryRequest(
        type_url=type_url,
        resource_names_subscribe=subscribe,
        resource_names_unsubscribe=unsubscribe,
        initial_resource_versions=versions,
    )


def test_types_that_nobody_serves_are_few_and_hold_nothing() -> None:
    _, session = started("a")
    for number in range(FOREIGN_TYPES_MAX):
        session.receive(request(f"x.{number}", ("a", "b"), c="v"))
    assert session.names_bytes == 0
    assert all(not state.way.held_count and not state.asked for state in session.types.values())
    session.receive(request("x.0"))
    session.receive(request(ADDRESS_TYPE))
    with pytest.raises(BadRequest) as caught:
        session.receive(request("x.more"))
    assert caught.value.why is CallRefusal.TOO_MANY_TYPES


@pytest.mark.parametrize(
    "bad",
    [
        request("x" * (TYPE_CHARS_MAX + 1)),
        request(subscribe=("n" * (NAME_CHARS_MAX + 1),)),
        pb.DeltaDiscoveryRequest(
            type_url=AUTHORIZATION_TYPE,
            initial_resource_versions={"n" * (NAME_CHARS_MAX + 1): "v"},
        ),
    ],
)
def test_names_have_a_length(bad: pb.DeltaDiscoveryRequest) -> None:
    with pytest.raises(BadRequest) as caught:
        started()[1].receive(bad)
    assert caught.value.why is CallRefusal.BAD_NAME


def test_a_client_that_returns_with_the_meshs_names_keeps_none_of_its_own() -> None:
    cache, session = started("ab")
    version = cache.entries(ADDRESS_TYPE)["a"].version
    session.receive(request(a=version, b="v" * 10_000, gone="x"))
    known = session.types[ADDRESS_TYPE].way.held()
    assert session.names_bytes == NAME_COST_BYTES + len("gone")
    assert len(known["b"]) <= 1
    assert known["a"] is cache.entries(ADDRESS_TYPE)["a"].version
    response = session.take()
    assert response is not None
    assert (response.added, response.removed) == (1, 1)
    assert session.names_bytes == 0, "told of what is gone, it holds it no longer"


def test_the_size_of_a_response_is_known_before_it_is_built() -> None:
    _, session = started("abcdef")
    session.receive(request())
    about = session.estimate_bytes()
    response = session.take()
    assert response is not None
    assert about <= len(response.data) <= about + 100
    assert session.estimate_bytes() == 0


def test_only_a_response_that_is_small_to_build_needs_no_turn() -> None:
    cache, session = started("abcdef")
    session.receive(request())
    assert session.is_cheap
    names = frozenset(map(str, range(CHEAP_MAX)))
    session.changed(cache.update(make_mesh(names)))
    assert not session.is_cheap, "much has changed"
    cache, asking = started("abcdef")
    asking.receive(request(subscribe=tuple(names)))
    assert not asking.is_cheap, "its names have to be resolved"
    while asking.take() is not None:
        pass
    assert asking.is_cheap
    asking.changed(cache.update(make_mesh(names)))
    assert not asking.is_cheap, "its names have to be resolved again"


SETS = st.frozensets(st.sampled_from(NAMES))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), SETS),
        st.tuples(st.just("unsubscribe"), SETS),
        st.tuples(st.just("change"), SETS),
        st.tuples(st.just("take"), st.just(frozenset())),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(SETS, SETS, st.booleans(), STEPS)
def test_the_account_of_names_is_what_is_kept(
    mesh: frozenset[str],
    held: frozenset[str],
    wildcard: bool,
    steps: list[tuple[str, frozenset[str]]],
) -> None:
    cache, session = started("".join(mesh))
    first = () if wildcard else ("a",)
    session.receive(request(subscribe=first, **dict.fromkeys(held, "v")))
    state = session.types[ADDRESS_TYPE]
    for number, (kind, names) in enumerate(steps):
        if kind == "subscribe" and names:
            session.receive(request(subscribe=tuple(names)))
        elif kind == "unsubscribe" and names:
            session.receive(request(unsubscribe=tuple(names)))
        elif kind == "change":
            session.changed(cache.update(make_mesh(names, str(number))))
        elif (response := session.take()) is not None:
            answer = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE)
            answer.response_nonce = response.nonce
            session.receive(answer)
        foreign = sum(version == "" for version in state.way.held().values())
        assert session.names_bytes == (len(state.asked) + foreign) * (NAME_COST_BYTES + 1)
        if isinstance(state.way, Picker) and not state.way.stale:
            wanted = {name for asked in state.asked for name in cache.resolve(asked)}
            assert wanted <= state.way.wanted
