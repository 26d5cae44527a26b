"""Faults: enrolment of running pods, and each of the mesh's processes killed at bad moments.

Traffic goes on, or it stops; it never goes in the clear."""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import fetch
from agent.lab import changes, netns, plan, process
from agent.lab.netns import NETNS_FOLDER
from tests.netns.mesh.loop import both, kill, loop
from tests.support.lab.churn import churning, only
from tests.support.lab.mesh_bed import (
    ENROLLED,
    FAMILIES,
    MARKER,
    PORT,
    Bed,
    Reply,
    mesh_bed,
    soon,
    speak,
)

ROUNDS = 6  # kills of the agent somewhere within an enrolment
ENROLMENT_S = 0.6  # about as long as one takes from the label to the capture
CHURNS = 10
SEED = 20240607


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture(autouse=True)
def whole(bed: Bed) -> Iterator[None]:
    """Each test starts, and must end, with every process up and everything captured."""
    bed.wait_captured()
    yield
    bed.wait_captured()
    every = (("client", "server", PORT), ("client", "near", PORT), ("stranger", "server", PORT))
    soon(lambda: bed.yes(*every), "traffic")


# -- enrolment of running pods ---------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_namespace_leaves_and_joins_the_mesh_under_running_connections(
    bed: Bed, family: int
) -> None:
    with bed.connect("client", "server", family) as inside_mesh:
        assert speak(inside_mesh)
        bed.mode("mesh", "-")
        bed.wait_captured(())
        with bed.wire(bed.here) as wire:
            assert bed.reach("client", "server", family) is Reply.ANSWERED
            assert wire.counts().marker_packets > 0
        with bed.connect("client", "server", family) as before:
            assert speak(before)
            bed.mode("mesh", "=ambient")
            bed.wait_captured()
            assert speak(before)
            with bed.wire(bed.here) as wire:
                assert bed.reach("client", "server", family) is Reply.ANSWERED
                with bed.connect("client", "server", family) as after:
                    assert speak(after).split()[0] == bed.address("client", family)
                assert wire.counts().marker_packets == 0
                assert wire.seen.hbone_payload_packets > 0
            assert speak(before)


def test_one_pod_opts_out_and_in_again(bed: Bed) -> None:
    changes.label(bed.lab, "Pod", "mesh", "server", ["istio.io/dataplane-mode=none"])
    try:
        rest = tuple(name for name in ENROLLED if name != "server")
        bed.wait_captured(rest)
        with bed.wire(bed.there) as wire:
            soon(lambda: bed.yes(("client", "server", PORT)), "in plaintext")
            assert wire.counts().marker_packets > 0
        assert bed.yes(("server", "near", PORT), ("client", "near", PORT))
    finally:
        changes.label(bed.lab, "Pod", "mesh", "server", ["istio.io/dataplane-mode-"])
    bed.wait_captured()
    soon(lambda: all(bed.served(node)["server"] for node in (bed.here, bed.there)), "HBONE")
    with bed.wire(bed.there) as wire:
        assert bed.yes(("client", "server", PORT))
        assert wire.counts().marker_packets == 0


def test_an_agent_killed_within_an_enrolment_finishes_it_later(bed: Bed) -> None:
    """A pod that was once captured stays sealed, and the ztunnel that has heard of a pod goes to it
    by HBONE. This node's: the other one may hear of it sooner. Every second kill is at any moment;
    a pod that was announced alone speaks as before."""
    moments = random.Random(SEED)
    for number in range(ROUNDS):
        bed.mode("mesh", "-")
        bed.wait_captured(())
        agent = bed.lab.store.load().processes[f"agent-{bed.here}"].pid
        bed.mode("mesh", "=ambient")
        if number % 2:
            soon(lambda: "client" in captured_by(bed, bed.here), "captured")
        else:
            threading.Event().wait(moments.random() * ENROLMENT_S)  # the moment is the test
        was_captured = "client" in captured_by(bed, bed.here)
        kill(agent)
        reported = {name for name, hbone in bed.served(bed.here).items() if hbone}
        is_sealed = was_captured and {"client", "server"} <= reported
        with bed.wire(bed.here) as wire:
            if is_sealed:
                for family in FAMILIES:
                    bed.reach("client", "server", family)
                assert wire.counts().marker_packets == 0
            changes.restart(bed.lab, "agent", bed.here)
            bed.wait_captured()
            # Captured first, and served as soon as the ztunnel has found the new agent.
            soon(lambda: bed.yes(("client", "server", PORT), ("client", "near", PORT)), "served")
            if is_sealed:
                assert wire.counts().marker_packets == 0
        with bed.wire(bed.here) as wire:
            assert bed.yes(("client", "server", PORT), ("client", "near", PORT))
            assert wire.counts().marker_packets == 0


def captured_by(bed: Bed, node: str) -> set[str]:
    return {each["name"] for each in bed.agent(node)["pods"] if each["state"] == "captured"}


def test_an_agent_killed_while_pods_leave_the_mesh_cuts_nobody(bed: Bed) -> None:
    try:
        with (
            bed.connect("client", "server", 4) as old,
            loop(bed, "client", both(bed, "server")) as tries,
        ):
            assert speak(old)
            bed.mode("mesh", "-")
            soon(lambda: releasing(bed) or bed.captured() == set(), "on its way out")
            kill(bed.lab.store.load().processes[f"agent-{bed.here}"].pid)
            changes.restart(bed.lab, "agent", bed.here)
            bed.wait_captured(())
            soon(lambda: not releasing(bed), "released")
            tries.more()
            assert {reply for _, reply in tries.replies} == {Reply.ANSWERED}
    finally:
        bed.mode("mesh", "=ambient")


def releasing(bed: Bed) -> bool:
    return any(pod["state"] == "releasing" for pod in bed.agent(bed.here)["pods"])


# -- processes -------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(bed: Bed) -> None:
    for node in (bed.here, bed.there):
        with bed.wire(bed.here) as wire:
            worker, *_ = bed.workers(node)
            kill(worker)
            soon(lambda: bed.yes(("client", "server", PORT)), "served again")
            assert bed.yes(("other", "near", PORT), ("stranger", "server", PORT))
            wire.counts()
            assert set(wire.seen.plaintext_ports) <= {PORT}  # the stranger's, which is outside
            assert worker not in bed.workers(node)


DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-client, namespace: mesh}
spec:
  action: DENY
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: ["cluster.local/ns/mesh/sa/client"]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def test_policies_do_not_lapse_while_anything_restarts(bed: Bed) -> None:
    targets = both(bed, "server")
    with bed.policy(DENY):
        soon(lambda: bed.no(("client", "server", PORT), ("stranger", "server", PORT)), "refused")
        soon(lambda: bed.in_force(bed.there, "not-client"), "in force")  # in each worker
        with loop(bed, "client", targets) as peer, loop(bed, "stranger", targets) as outsider:
            for _ in range(2):
                kill(bed.workers(bed.there)[0])
                soon(lambda: bed.yes(("other", "server", PORT)), "a new worker serves")
                for what in ("ztunnel", "control", "agent"):
                    changes.kill(bed.lab, what, None if what == "control" else bed.there)
                    peer.more(4)
                    changes.restart(bed.lab, what, None if what == "control" else bed.there)
                    soon(lambda: bed.yes(("other", "server", PORT)), f"served after {what}")
                    outsider.more(4)
        replies = {reply for tries in (peer, outsider) for _, reply in tries.replies}
        assert Reply.ANSWERED not in replies


@pytest.mark.parametrize("where", ["here", "there"])
def test_without_a_ztunnel_pods_fail_closed(bed: Bed, where: str) -> None:
    node = getattr(bed, where)
    with bed.wire(bed.here) as near, bed.wire(bed.there) as far:
        changes.kill(bed.lab, "ztunnel", node)
        for _ in range(3):
            assert bed.no(("client", "server", PORT), ("other", "server", PORT))
        if where == "there":
            assert bed.no(("stranger", "server", PORT))
        changes.restart(bed.lab, "ztunnel", node)
        soon(lambda: bed.yes(("client", "server", PORT)), "served again")
        for wire in (near, far):
            assert wire.counts().marker_packets == 0
            assert wire.seen.plaintext_payload_packets == 0
    assert bed.yes(("stranger", "server", PORT))


def test_a_supervisor_killed_alone_leaves_no_open_door(bed: Bed) -> None:
    """Its worker sees that and ends; until the restart nothing gets out or in."""
    supervisor = bed.lab.store.load().processes[f"ztunnel-{bed.here}"].pid
    workers = bed.workers(bed.here)
    with bed.wire(bed.here) as wire:
        kill(supervisor)
        soon(lambda: not any(process.start_of(pid) for pid in workers), "no worker is left")
        assert bed.no(("client", "server", PORT))
        # The kernel's verdicts are good until the agent hears that their maker is gone.
        soon(lambda: bed.no(("client", "near", PORT)), "the kernel has no verdict of it left")
        assert bed.no(("client", "server", PORT), ("client", "near", PORT))
        assert bed.no(("stranger", "near", PORT))
        changes.restart(bed.lab, "ztunnel", bed.here)
        soon(lambda: bed.yes(("client", "server", PORT)), "served again")
        assert wire.counts().marker_packets == 0


def test_an_agents_death_and_return_goes_unnoticed(bed: Bed) -> None:
    with bed.wire(bed.here) as wire:
        with (
            bed.connect("client", "server", 6) as old,
            loop(bed, "client", both(bed, "server")) as tries,
        ):
            assert speak(old)
            for node in (bed.here, bed.there):
                kill(bed.lab.store.load().processes[f"agent-{node}"].pid)
            tries.more()
            assert speak(old)
            changes.restart(bed.lab, "agent", None)
            bed.wait_captured()
            tries.more()
            assert speak(old)
            tries.more()
        assert set(tries.replies) == {("", Reply.ANSWERED)}
        assert wire.counts().marker_packets == 0


def test_without_a_control_plane_traffic_goes_on_and_new_pods_wait(bed: Bed) -> None:
    state = bed.lab.store.load()
    late = plan.pod_netns(state.lab, "mesh", "late")
    socket_path = bed.lab.run_dir / bed.here / "agent.sock"
    body = {"namespace": "mesh", "name": "late", "uid": str(uuid.uuid4()), "timeout_s": 1}
    body["netns"] = str(NETNS_FOLDER / late)
    with (
        namespace(late),
        bed.wire(bed.here) as wire,
        bed.connect("client", "server", 4) as old,
        loop(bed, "client", both(bed, "server")) as tries,
    ):
        changes.kill(bed.lab, "control", None)
        tries.more()
        assert speak(old)
        answer = fetch.request(socket_path, "POST", "/pods", body)
        assert answer.status == 503  # the caller must not start the pod
        assert answer.json()["error"]
        changes.restart(bed.lab, "control", None)
        tries.more()
        soon(lambda: bed.agent(bed.here)["control"]["connected"], "the agent is back")
        tries.more()
        assert speak(old)
        assert set(tries.replies) == {("", Reply.ANSWERED)}
        assert wire.counts().marker_packets == 0
        assert fetch.request(socket_path, "DELETE", f"/pods/{body['uid']}").status < 400


@contextmanager
def namespace(name: str) -> Iterator[None]:
    netns.create(name)
    try:
        yield
    finally:
        netns.remove(name)


# -- pods that come and go -------------------------------------------------------------------


def test_an_address_that_changes_hands_never_speaks_or_answers_as_its_last_owner(bed: Bed) -> None:
    """Each pod has the last one's address and the other account. `server` lets one account in;
    each pod lets in only callers of its own account."""
    accounts = ("client", "other")
    rules = [only(each) for each in accounts]
    rules.append(only("client", app="server"))
    source = str(bed.lab.run_dir.parent / "lab" / "churn.yaml")
    inodes: set[int] = set()
    with bed.policy(*rules):
        soon(lambda: bed.no(("other", "server", PORT)), "the policies hold")
        changes.apply(bed.lab, churning(bed.here, "client"), source)
        targets = both(bed, "churn")
        with loop(bed, "client", targets, 2.0, "client") as tries:
            for number in range(CHURNS):
                tries.phase = account = accounts[number % 2]
                if number:
                    changes.apply(bed.lab, churning(bed.here, account), source)
                assert both(bed, "churn") == targets
                inodes.add((NETNS_FOLDER / bed.pod("churn").netns).stat().st_ino)
                caller = ("churn", "server", PORT)
                if account == "client":
                    soon(lambda: bed.yes(("churn", "server", PORT)), "may call")
                    soon(lambda: bed.yes(("client", "churn", PORT)), "may be called")
                else:
                    assert all(bed.no(caller) for _ in range(5))
                    soon(lambda: bed.yes(("other", "churn", PORT)), "may be called")
                changes.delete(bed.lab, "pod", "mesh", "churn")
                tries.phase = "gone"
        answered = {phase for phase, reply in tries.replies if reply is Reply.ANSWERED}
        assert answered <= {"client", "between"}
        assert "client" in answered
    soon(lambda: not held_namespaces(inodes), "every namespace is freed")


def test_manifests_that_vanish_for_a_moment_open_nothing(bed: Bed) -> None:
    """As when an editor truncates a file before it writes: the pods run on, captured."""
    file = bed.lab.manifests_folder / "manifests.yaml"
    text = file.read_text()
    try:
        with bed.wire(bed.here) as wire, bed.wire(bed.there) as far:
            file.write_text("")
            soon(lambda: not bed.served(bed.here), "the mesh is empty")
            assert bed.no(("client", "server", PORT))
            file.write_text(text)
            soon(lambda: bed.yes(("client", "server", PORT)), "served again")
            assert wire.counts().marker_packets == 0
            assert far.counts().marker_packets == 0
    finally:
        if bed.captured() != set(ENROLLED):
            changes.restart(bed.lab, "agent", None)  # makes them report afresh


def held_namespaces(inodes: set[int]) -> set[int]:
    """Those that a process of the mesh still has a descriptor of."""
    held = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                if os.readlink(descriptor).startswith("net:["):
                    held.add(descriptor.stat().st_ino)
        except OSError:
            continue
    return held & inodes


def test_the_marker_would_have_been_seen(bed: Bed) -> None:
    """The judge of all these tests works: outside the mesh the same line is on the link."""
    with bed.wire(bed.there) as wire, bed.connect("stranger", "server", 4) as sock:
        assert speak(sock, MARKER)
        assert wire.counts().marker_packets > 0
