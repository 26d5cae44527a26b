"""A client that asks by name; test_session_on_demand has the conversations."""

from __future__ import annotations

from control.server.xds.names import NAME_COST_BYTES, KeptNames
from control.server.xds.picker import Picker
from control.server.xds.shelf import FOREIGN, OLD
from tests.support.mesh_cache import MeshCache
from tests.unit.control.server.xds.session_bench import A, B, make_mesh


def test_a_returning_client_has_asked_for_what_it_holds() -> None:
    cache, names = MeshCache(), KeptNames()
    cache.update(make_mesh(A, B))
    picker = Picker(cache, "n1", names, set())
    picker.take_over({A.uid: "?", "gone": "v"})
    picker.begin({B.uid}, set())
    assert picker.known == {A.uid: OLD, "gone": FOREIGN}
    assert picker.asked == {A.uid, B.uid, "gone"}
    assert picker.owed == {B.uid}
    added = [each.name for each in picker.due().added]  # type: ignore[attr-defined]
    assert (added, list(picker.due().removed)) == ([A.uid, B.uid], ["gone"])
    picker.close()
    kept = (A.uid, B.uid, "gone")
    assert names.size_bytes == sum(NAME_COST_BYTES + len(each) for each in kept)
