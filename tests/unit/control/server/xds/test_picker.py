"""A client that asks by name; test_session_on_demand has the conversations."""

from __future__ import annotations

from dataclasses import replace

from control.server.xds.names import NAME_COST_BYTES, KeptNames
from control.server.xds.picker import Picker
from control.server.xds.shelf import FOREIGN, OLD
from control.wire.types import ADDRESS_TYPE
from tests.support.mesh_cache import MeshCache
from tests.unit.control.server.xds.session_bench import KEY, A, B, make_mesh, service, workload


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


def test_a_change_that_no_name_leads_to_is_one_look() -> None:
    cache, names = MeshCache(), KeptNames()
    cache.update(make_mesh(A, B))
    picker = Picker(cache, "n1", names, set())
    picker.begin({"/10.0.0.97", KEY}, set())
    picker.take(with_removed=True)
    assert not picker.has_news
    for mesh in (
        make_mesh(A, workload("b", "v2")),
        make_mesh(A, workload("b", "v2"), workload("c")),
        make_mesh(A, workload("c")),
        make_mesh(A, workload("c"), services=(replace(service(), hostname="other"),)),
    ):
        picker.changed(cache.update(mesh)[ADDRESS_TYPE])
        assert not picker.stale
        assert not picker.has_news
    picker.changed(cache.update(make_mesh(workload("a", "v2"), workload("c")))[ADDRESS_TYPE])
    assert not picker.stale, "one of its own is one look too"
    assert [each.name for each in picker.due().added] == [A.uid]  # type: ignore[attr-defined]


def test_a_change_that_others_hang_on_has_all_names_resolved() -> None:
    member, here = workload("m", services=(KEY,)), replace(B, node="n1")
    cache, names = MeshCache(), KeptNames()
    before = make_mesh(A, member, here, services=(service(),))
    for after in (
        make_mesh(A, member, here),
        make_mesh(A, member, services=(service(),)),
        make_mesh(A, member, replace(here, services={KEY: ()}), services=(service(),)),
        make_mesh(A, member, here, services=(replace(service(), affinity_s=3),)),
        make_mesh(member, here, services=(service(),)),
    ):
        cache.update(before)
        picker = Picker(cache, "n1", names, set())
        picker.begin({"/10.0.0.97", KEY}, set())
        picker.changed(cache.update(after)[ADDRESS_TYPE])
        assert picker.stale
