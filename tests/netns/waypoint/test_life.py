"""A waypoint's life beside running requests: renewal, crash, roll-out, no control plane."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from agent.lab import changes, process
from agent.lab.pods import LabPods
from tests.netns.waypoint.test_requests import policy
from tests.support.lab.mesh_bed import soon
from tests.support.lab.waypoint_bed import REFUSED, WAYPOINT, WaypointBed, ask


class Requests:
    """Requests without a pause, on a connection each and on one that is kept as long as it may."""

    def __init__(self, bed: WaypointBed) -> None:
        self.outcomes: Counter[tuple[str, int]] = Counter()
        self._bed = bed
        self._address = bed.virtual("web")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._new, self._kept)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for each in self._threads:
            each.start()
        try:
            yield
        finally:
            self._stop.set()
            for each in self._threads:
                each.join()

    def count(self, kind: str) -> int:
        return self.outcomes[kind, 200]

    @property
    def failed(self) -> dict[tuple[str, int], int]:
        return {key: count for key, count in self.outcomes.items() if key[1] != 200}

    def _new(self) -> None:
        while not self._stop.is_set():
            reply = self._bed.get_at("client", self._address, 80)
            self.outcomes["new", reply.status] += 1

    def _kept(self) -> None:
        connection = None
        while not self._stop.is_set():
            try:
                connection = connection or self._bed.open("client", self._address, 80)
            except OSError:
                self.outcomes["kept", 0] += 1
                continue
            reply = ask(connection)
            self.outcomes["kept", reply.status] += 1
            if connection.sock is None or reply == REFUSED:  # the server asked for its end
                connection.close()
                connection = None


def more(requests: Requests, number: int = 20) -> None:
    """Wait until so many more of each kind have passed."""
    before = {kind: requests.count(kind) for kind in ("new", "kept")}
    soon(
        lambda: all(requests.count(kind) >= was + number for kind, was in before.items()),
        f"requests pass: {requests.outcomes}",
    )


def status(bed: WaypointBed) -> dict[str, object]:
    found: dict[str, object] = json.loads(bed.waypoint("/status").body)
    return found


def another(bed: WaypointBed, name: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: mesh
  labels: {{gateway.networking.k8s.io/gateway-name: gate}}
  annotations: {{tulle.io/lab-node: {bed.there}, tulle.io/lab-waypoint: gate}}
spec: {{serviceAccountName: gate, containers: [{{name: waypoint}}]}}
"""


def test_a_renewed_certificate_costs_no_request(bed: WaypointBed) -> None:
    requests, before = Requests(bed), status(bed)["certificate"]
    with requests.running():
        more(requests)
        assert bed.waypoint("/certificates/rotate", "POST").status == 200
        soon(lambda: status(bed)["certificate"] != before, "it is renewed")
        more(requests)
    assert not requests.failed


def test_without_a_control_plane_requests_pass_and_changes_come_with_it(bed: WaypointBed) -> None:
    requests = Requests(bed)
    rule = "{to: [{operation: {paths: [/secret]}}]}"
    with requests.running():
        changes.stop(bed.lab, "control", None)
        soon(lambda: "xds.disconnected" in bed.log(f"mesh-{WAYPOINT}"), "the waypoint is alone")
        more(requests)
        with bed.objects(policy(rule)):
            assert bed.get("client", "web", "/secret").status == 200
            changes.restart(bed.lab, "control", None)
            soon(lambda: bed.get("client", "web", "/secret").status == 403, "the change came")
        soon(lambda: bed.get("client", "web", "/secret").status == 200, "it goes too")
        more(requests)
    assert not requests.failed


def test_an_envoy_that_crashes_refuses_and_comes_back(bed: WaypointBed) -> None:
    found = re.findall(r"envoy.started pid=(\d+)", bed.log(f"mesh-{WAYPOINT}"))
    pid = int(found[-1])
    victim = process.Process(pid, process.start_of(pid) or 0)
    assert process.send(victim, signal.SIGKILL)
    process.wait_gone([victim], 5.0)
    replies = {bed.get("client", "web").status for _ in range(3)}
    assert replies <= {0, 200}
    bed.answers()
    assert status(bed)["envoy"] == {"up": True, "starts": len(found) + 1}


def test_a_roll_out_costs_no_request(bed: WaypointBed) -> None:
    requests = Requests(bed)
    with requests.running():
        more(requests)
        bed.apply(another(bed, "gate-2"))
        more(requests)
        changes.delete(bed.lab, "Pod", "mesh", WAYPOINT)
        more(requests)
    assert not requests.failed
    assert "drain.ended" in bed.log(f"mesh-{WAYPOINT}")
    # And back, so that the other tests find what they know.
    bed.apply(another(bed, WAYPOINT))
    changes.delete(bed.lab, "Pod", "mesh", "gate-2")
    bed.answers()


def test_without_a_waypoint_nobody_passes(bed: WaypointBed) -> None:
    state, record = bed.lab.pod("mesh", WAYPOINT)
    assert record.process is not None
    assert process.send(record.process, signal.SIGKILL)
    process.wait_gone([record.process], 5.0)
    soon(lambda: bed.get("client", "web") == REFUSED, "refused")
    assert bed.get_at("client", bed.address("v2", 4), 8080) == REFUSED
    pods = LabPods(bed.lab.run_dir, state)
    pods.start(record)
    bed.lab.store.save(state)
    bed.answers()
