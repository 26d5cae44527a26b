"""A worker does as the supervisor says, in order, and ends when it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from control.model.address import parse_address, parse_endpoint
from control.model.identity import SpiffeId
from control.model.workload import Workload
from tests.support.certificates import Authority, make_authority
from tests.support.engine.meshes import mesh, pod
from tests.support.engine.tunnel_bed import eventually
from tests.support.engine.tunnel_mesh import mesh_entries
from tests.support.engine.worker_rig import WorkerRig, worker_rig
from ztunnel.ipc import FRAME_BYTES_MAX, Frame, FrameKind, encode_json
from ztunnel.mesh.entries import Entry, Op, encode_entries
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.tenants.bounds import LABEL_SETS
from ztunnel.transport.dial import Dialer
from ztunnel.worker import worker

WEB = SpiffeId("cluster.local", "demo", "web")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig() -> Iterator[WorkerRig]:
    with worker_rig() as made:
        yield made


def test_a_pod_is_served_once_it_is_said_to_be_ready(rig: WorkerRig) -> None:
    rig.add_pod("uid-1", "web")
    assert rig.heard(FrameKind.POD_READY) == [{"uid": "uid-1"}]
    assert list(rig.worker.engine.pods) == ["uid-1"]
    rig.tell(FrameKind.POD_DELETE, {"uid": "uid-1"})
    assert not rig.worker.engine.pods


def test_frames_that_came_behind_the_settings_are_not_lost() -> None:
    state = Frame(FrameKind.RESOURCES, encode_entries(mesh_entries(pod("web", "10.0.0.1"))))
    query = Frame(FrameKind.QUERY, encode_json({"id": 9, "what": "pools"}))
    with worker_rig(state, query) as rig:
        rig.settle()
        assert rig.worker.engine.state.synced
        assert rig.heard(FrameKind.ANSWER) == [{"id": 9, "more": False, "pools": []}]


def test_it_says_now_and_then_that_it_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT_S", 0.01)
    with worker_rig() as rig:
        beats = 0

        def heard() -> bool:
            nonlocal beats
            rig.settle()
            beats += len(rig.heard(FrameKind.BEAT))
            return beats >= 2

        eventually(heard, "two of them")


def test_the_engine_is_made_for_the_settings() -> None:
    with worker_rig(trust_domain="td", worker=3, node="n1", spin_us=50) as rig:
        engine = rig.worker.engine
        assert (engine.config.trust_domain, engine.config.worker) == ("td", 3)
        assert engine.reactor.spin.spin_s == pytest.approx(50e-6)
        for outcome in ("hit", "miss"):
            assert rig.counter("tulle_ztunnel_polls_total", outcome=outcome) is not None
        assert engine.pool.dialer is engine.dialer
        assert type(engine.dialer) is Dialer
        assert engine.access_log is not None


def test_packet_filter_rules_get_a_dialer_that_marks() -> None:
    with worker_rig(fixed_ports=True, access_log=False) as rig:
        engine = rig.worker.engine
        assert type(engine.dialer) is not Dialer
        assert engine.pool.dialer is engine.dialer
        assert engine.access_log is None


def test_only_a_node_with_a_direct_path_observes_its_pods() -> None:
    for direct in (False, True):
        with worker_rig(direct=direct) as rig:
            rig.add_pod("uid-1", "web")
            assert (rig.worker.engine.pods["uid-1"].observer is not None) == direct


def test_an_unusable_certificate_is_counted(rig: WorkerRig, authority: Authority) -> None:
    good = authority.issue(str(WEB))
    rig.certify(WEB, type(good)(b"nonsense", good.chain_pem, good.roots_pem))
    assert rig.worker.engine.counters.refusals == {"unusable_certificate": 1}
    assert rig.worker.reactor.running


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FrameKind.CONFIG, {}),
        (FrameKind.READY, {}),
        (FrameKind.POD_DELETE, {}),
        (FrameKind.CERTIFICATE, {"identity": "nonsense"}),
        (FrameKind.LOG_LEVEL, {"level": "loud"}),
    ],
)
def test_a_frame_that_makes_no_sense_ends_the_worker(
    rig: WorkerRig, kind: FrameKind, value: dict[str, str]
) -> None:
    rig.tell(kind, value)
    assert not rig.worker.reactor.running


def test_a_worker_ends_with_its_supervisor(rig: WorkerRig) -> None:
    rig.channel.finish()
    rig.settle()
    assert not rig.worker.reactor.running


def test_a_question_nobody_knows_is_answered_all_the_same(rig: WorkerRig) -> None:
    assert rig.ask("weather") == {"id": 1, "more": False, "error": "unknown question"}


def test_a_drain_without_connections_is_over_soon(rig: WorkerRig) -> None:
    rig.add_pod("uid-1", "web")
    rig.tell(FrameKind.DRAIN, {"deadline_s": 30})
    rig.worker.reactor.turn(1.0)
    assert rig.heard(FrameKind.DRAINED) == [{}]
    assert not rig.worker.engine.pods["uid-1"].listeners


def test_resources_reach_the_state(rig: WorkerRig) -> None:
    web = pod("web", "10.0.0.1")
    rig.channel.send(FrameKind.RESOURCES, encode_entries(mesh_entries(web)))
    rig.settle()
    assert list(rig.worker.engine.state.workloads()) == list(mesh(web).workloads())


def test_an_identity_is_forgotten_with_its_last_pod(rig: WorkerRig, authority: Authority) -> None:
    for uid in ("uid-1", "uid-2"):
        rig.add_pod(uid, "web")
        rig.certify(WEB, authority.issue(str(WEB)))
        assert rig.counter("tulle_ztunnel_tls_contexts") == 1
        rig.tell(FrameKind.POD_DELETE, {"uid": uid})
        rig.tell(FrameKind.CERTIFICATE_FORGOTTEN, {"identity": str(WEB)})
        assert rig.counter("tulle_ztunnel_tls_contexts") == 0


def test_ten_thousand_label_sets_with_long_names_end_no_worker(rig: WorkerRig) -> None:
    """In one frame they were more than a frame may carry, which was taken for a lost supervisor."""
    counters = rig.worker.engine.counters
    at = parse_endpoint("10.0.0.1:80")
    for number in range(LABEL_SETS.total):
        long = f"{number}-{'x' * 200}"
        who = Workload(uid=long, name=long, namespace="n" * 60, service_account=long)
        counters.series(Parties(Reporter.SOURCE, at, at, who)).opened = 1
    rig.tell(FrameKind.QUERY, {"id": 1, "what": "metrics"})
    pieces: list[dict[str, Any]] = []
    while not pieces or pieces[-1]["more"]:
        rig.settle()
        pieces += rig.heard(FrameKind.ANSWER)
    opened = [row for each in pieces for row in each.get("counters", ()) if "opened" in row[0]]
    assert len(opened) == LABEL_SETS.total
    assert max(len(json.dumps(each)) for each in pieces) < FRAME_BYTES_MAX // 4
    assert rig.worker.reactor.running


def test_a_workload_that_goes_is_told_to_tunnels_and_counters(rig: WorkerRig) -> None:
    web = pod("web", "10.0.0.1")
    rig.channel.send(FrameKind.RESOURCES, encode_entries(mesh_entries(web)))
    rig.settle()
    counters, at = rig.worker.engine.counters, parse_endpoint("10.0.0.1:80")
    counters.series(Parties(Reporter.SOURCE, at, at, web)).failed[Flag.CONNECT] = 1
    moved = replace(web, addresses=(parse_address("10.0.0.9"),))
    rig.channel.send(FrameKind.RESOURCES, encode_entries(mesh_entries(moved)))
    rig.settle()
    assert not counters.departed._names, "it is only elsewhere"
    gone = Entry(Op.REMOVE_ADDRESS, web.uid)
    rig.channel.send(FrameKind.RESOURCES, encode_entries([gone]))
    rig.settle()
    assert counters.departed._names == {web.uid}


def resources(rig: WorkerRig, *entries: Entry) -> None:
    rig.channel.send(FrameKind.RESOURCES, encode_entries(entries))
    rig.settle()


class Waiting:
    def __init__(self) -> None:
        self.fates: list[object] = []

    def on_known(self) -> None:
        self.fates.append("known")

    def on_unknown(self, reason: Reason) -> None:
        self.fates.append(reason)

    def on_bug(self) -> None:
        raise AssertionError


def test_addresses_are_asked_for_on_demand_and_an_answer_wakes_who_waits(rig: WorkerRig) -> None:
    rig.add_pod("uid-1", "web")
    resources(rig, Entry(Op.ON_DEMAND), Entry(Op.SNAPSHOT))
    engine, item, other = rig.worker.engine, Waiting(), Waiting()
    pod_served = engine.pods["uid-1"]
    assert engine.lookups.wait(pod_served, item, ["/10.0.0.9"])
    assert engine.lookups.wait(pod_served, other, ["/10.0.0.8"])
    rig.settle()
    asked = [(each["pod"], each["names"]) for each in rig.heard(FrameKind.NEED_ADDRESSES)]
    assert asked == [("uid-1", ["/10.0.0.9"]), ("uid-1", ["/10.0.0.8"])]
    resources(rig, Entry(Op.KNOWN, "/10.0.0.9"))
    assert (item.fates, other.fates) == (["known"], [])
    no = {"pod": "uid-1", "names": ["/10.0.0.8"], "reason": "ADDRESSES_MAX"}
    rig.tell(FrameKind.UNANSWERED, no)
    assert other.fates == [Reason.ADDRESSES_MAX]


def test_whoever_waits_is_woken_when_everything_comes_unasked(rig: WorkerRig) -> None:
    rig.add_pod("uid-1", "web")
    resources(rig, Entry(Op.ON_DEMAND), Entry(Op.SNAPSHOT))
    item = Waiting()
    assert rig.worker.engine.lookups.wait(rig.worker.engine.pods["uid-1"], item, ["/10.0.0.9"])
    resources(rig, Entry(Op.ALL))
    assert item.fates == ["known"]


def test_names_in_use_are_told_when_asked(rig: WorkerRig) -> None:
    rig.add_pod("uid-1", "web")
    state = rig.worker.engine.state
    workload = pod("uid-1", "10.0.0.1", namespace="demo", service_account="web")
    state.apply([Entry(Op.ON_DEMAND), *mesh_entries(workload)])
    rig.worker.engine.pods["uid-1"].dials(parse_endpoint("10.0.0.9:80"))
    rig.tell(FrameKind.QUERY, {"id": 3, "what": "names"})
    found = [name for each in rig.heard(FrameKind.ANSWER) for name in each.get("names", ())]
    assert found == ["/10.0.0.9"]
