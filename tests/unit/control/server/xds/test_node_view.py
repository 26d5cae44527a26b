"""A node is shown the mesh and its own pods, and nothing of waypoints."""

from __future__ import annotations

import pytest

from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import Word
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE, KINDS_OF_ENVOY
from tests.support.mesh_cache import MeshCache
from tests.unit.control.server.xds.session_bench import A, make_mesh, policy


@pytest.mark.parametrize("url", KINDS_OF_ENVOY)
def test_types_of_waypoints_stay_empty_for_a_node(url: str) -> None:
    cache = MeshCache()
    cache.update(make_mesh(A))
    session = DeltaSession(NodeView(cache, "n1"))
    session.receive(pb.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["a"]))
    response = session.take()
    assert response is not None
    assert (response.added, response.removed) == (0, 0)
    assert session.names_bytes == 0


def test_policies_come_first_and_the_word_is_whole_with_the_last() -> None:
    cache = MeshCache()
    cache.update(make_mesh(A, policies=(policy("p"),)))
    view = NodeView(cache, "n1")
    states = {
        url: view.open(pb.DeltaDiscoveryRequest(type_url=url), {})
        for url in (ADDRESS_TYPE, AUTHORIZATION_TYPE)
    }
    assert view.waits(ADDRESS_TYPE, states)
    assert not view.waits(AUTHORIZATION_TYPE, states)
    assert view.withholds(AUTHORIZATION_TYPE, states)
    for url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
        assert view.word(states) is Word.MORE
        states[url].way.take(with_removed=True)
        states[url].answered = True
    assert view.word(states) is Word.WHOLE
    assert not view.waits(ADDRESS_TYPE, states)
    assert not view.withholds(AUTHORIZATION_TYPE, states)
