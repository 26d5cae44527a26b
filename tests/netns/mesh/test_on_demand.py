"""Addresses on demand, with two workers: a first connection waits for its answer, and nothing that
is not known goes past the mesh."""

from __future__ import annotations

import socket
import statistics
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.lab import changes
from agent.lab.netns import inside
from tests.netns.mesh.loop import kill
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import (
    FAMILIES,
    PORT,
    Bed,
    Reply,
    mesh_bed,
    soon,
    speak,
)
from tests.support.lab.mesh_direct import goes_direct, metrics

ANSWERS = 100  # addresses outside the mesh that a pod answers at
BLOCK = "198.51.100"
ADDED_MS = 20.0  # the goal is 5 on a quiet machine
SCANNED = 4000
REFUSED = "tulle_ztunnel_refusals_total"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("ondemand"), workers=2, addresses="on-demand") as made:
        yield made


@pytest.fixture(scope="module")
def outside(bed: Bed) -> str:
    """The beginning of addresses that are in no mesh, and answer."""
    here, pod = bed.lab.store.load().node(bed.here), bed.pod("stranger")
    for command in (
        ["ip", "-n", pod.netns, "address", "add", f"{BLOCK}.0/24", "dev", "lo"],
        ["ip", "-n", here.netns, "route", "add", f"{BLOCK}.0/24", "via", pod.address.v4],
    ):
        subprocess.run(command, check=True)
    return BLOCK


def known(bed: Bed, node: str) -> set[str]:
    return {each["name"] for each in bed.ztunnel(node)["workloads"]}


def test_a_node_knows_its_own_and_learns_what_its_pods_dial(bed: Bed) -> None:
    assert known(bed, bed.here) == {"client", "other", "near", "stranger"}
    assert known(bed, bed.there) == {"server"}
    with bed.wire(bed.there) as wire:
        for family in FAMILIES:
            assert bed.reach("client", "server", family) is Reply.ANSWERED
        counts = wire.counts()
    assert counts.marker_packets == 0, "the very first connection is encrypted too"
    assert "server" in known(bed, bed.here)
    soon(lambda: "client" in known(bed, bed.there), "the caller has a name there")


def test_pods_of_one_node_reach_each_other_and_go_direct(bed: Bed) -> None:
    goes_direct(bed, bed.address("near", 4)).close()


def test_a_policy_counts_for_whom_nobody_has_asked(bed: Bed) -> None:
    deny = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-other, namespace: mesh}
spec:
  action: DENY
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/mesh/sa/other]}}]}]
"""
    with bed.policy(deny):
        soon(lambda: bed.in_force(bed.there, "not-other"), "in force")
        assert bed.no(("other", "server", PORT))
        assert bed.yes(("client", "server", PORT))


def test_a_first_connection_waits_one_round_trip(bed: Bed, outside: str) -> None:
    """To addresses that are in no mesh, so that nothing but the answer is waited for."""
    assert bed.ask("client", f"{outside}.{ANSWERS + 1}") is Reply.ANSWERED
    first, again = [], []
    for number in range(1, ANSWERS + 1):
        for times in (first, again):
            began = time.perf_counter()
            assert bed.ask("client", f"{outside}.{number}") is Reply.ANSWERED
            times.append((time.perf_counter() - began) * 1000)
    added = statistics.median(first) - statistics.median(again)
    assert added < ADDED_MS, f"after {statistics.median(again)} ms without a wait"


def test_a_pod_that_scans_is_refused_and_its_neighbour_is_not(bed: Bed, outside: str) -> None:
    client = [bed.connect("client", "server", family) for family in FAMILIES]
    before = metrics(bed, REFUSED)
    scan = []
    with inside(bed.pod("other").netns):
        for number in range(SCANNED):
            made = socket.socket()
            made.setblocking(False)
            made.connect_ex((f"203.0.{number // 250}.{number % 250 + 1}", 80))
            scan.append(made)
            if len(scan) > 500:
                scan.pop(0).close()
            if number % 200 == 0:
                began = time.perf_counter()
                assert bed.ask("near", f"{outside}.{number // 200 + 150}") is Reply.ANSWERED
                assert time.perf_counter() - began < 1.5, "it does not wait in another's queue"
    for each in scan:
        each.close()
    assert metrics(bed, REFUSED) > before
    assert all(speak(each) for each in client)
    assert bed.yes(("client", "server", PORT))
    for each in client:
        each.close()
    asked = sum(
        metrics(bed, "tulle_ztunnel_addresses_asked", stage=stage)
        for stage in ("asked", "queued", "answered")
    )
    assert asked < SCANNED


def test_a_new_worker_knows_what_the_node_has_asked_for(bed: Bed) -> None:
    kill(bed.workers(bed.here)[0])
    soon(lambda: len(bed.ztunnel(bed.here)["workers"]) == 2, "a new one")
    soon(lambda: bed.yes(("client", "server", PORT)), "served")


def test_while_the_control_plane_is_away_what_is_known_works_and_nothing_goes_past(
    bed: Bed,
) -> None:
    with bed.wire(bed.here) as wire:
        changes.kill(bed.lab, "control", None)
        eventually(lambda: not bed.ztunnel(bed.there)["control"]["connected"], "noticed", 10)
        assert bed.yes(("client", "server", PORT), ("other", "near", PORT))
        # The other node has never asked for this pod: it may be in the mesh or not.
        near = bed.address("near", 4)
        assert bed.ask("server", near) is Reply.CLOSED
        assert wire.counts().marker_packets == 0
        changes.restart(bed.lab, "control", None)
    eventually(lambda: bed.ask("server", near) is Reply.ANSWERED, "asked again", 10)
