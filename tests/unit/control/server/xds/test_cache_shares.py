"""The cache: the same from a whole mesh and from the workloads that changed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control.model.workload import TunnelProtocol, Workload
from control.server.compile.delta import MeshDelta
from control.wire.types import ADDRESS_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache

NAMES = tuple("abcde")


def workload(name: str, protocol: TunnelProtocol) -> Workload:
    return Workload(uid=name, name=name, namespace="ns", addresses=(), tunnel_protocol=protocol)


# None: no such workload.
STATES = st.lists(
    st.sampled_from([*TunnelProtocol, None]), min_size=len(NAMES), max_size=len(NAMES)
)


@given(STATES, STATES)
def test_some_workloads_and_a_whole_mesh_are_the_same_change(
    before: list[TunnelProtocol | None], after: list[TunnelProtocol | None]
) -> None:
    old, new = (
        {name: workload(name, each) for name, each in zip(NAMES, states, strict=True) if each}
        for states in (before, after)
    )
    whole, some = MeshCache(), MeshCache()
    for cache in (whole, some):
        cache.update(replace(EMPTY, workloads=old))
    wanted = whole.update(replace(EMPTY, workloads=new))
    changed = {name: new.get(name) for name in NAMES if old.get(name) != new.get(name)}
    assert some.apply(MeshDelta(workloads=changed)) == wanted
    frames = [
        {name: each.framed for name, each in cache.entries(ADDRESS_TYPE).items()}
        for cache in (whole, some)
    ]
    assert frames[0] == frames[1]
    sizes = [cache.shelf(ADDRESS_TYPE, "").size_bytes for cache in (whole, some)]
    assert sizes == [sum(map(len, frames[0].values()))] * 2


def test_the_average_follows_what_is_there() -> None:
    cache = MeshCache()
    shelf = cache.shelf(ADDRESS_TYPE, "")
    assert shelf.average_bytes == 0
    cache.update(replace(EMPTY, workloads={"a": workload("a", TunnelProtocol.NONE)}))
    assert shelf.average_bytes == len(cache.entries(ADDRESS_TYPE)["a"].framed)
    cache.update(EMPTY)
    assert shelf.average_bytes == 0
