"""A kubelet in its own cgroup on a whole mesh under STRICT: found, let in, followed, forgotten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.datapath import cgroups
from agent.lab import changes
from agent.lab.netns import NETNS_FOLDER
from control.kit.files import write_atomic
from tests.netns.mesh.policy_rows import peer
from tests.support.kernel.netns import Pod, Process
from tests.support.lab.mesh_bed import Bed, soon, speak

KUBELET_PORT = 10250
PROBED, OTHER = 8080, 9090
FAMILIES = (4, 6)


class Kubelet(Process):
    """A process that listens where a kubelet does, in a cgroup of its own, and probes."""

    def __init__(self, bed: Bed, cgroup: Path) -> None:
        super().__init__()
        self.place = host_of(bed)
        self.join_cgroup(cgroup)
        self.enter(self.place)

    def serve(self) -> None:
        assert self.hold(self.place, "::", KUBELET_PORT)

    def passes(self, address: str, port: int) -> bool:
        """One probe: a connection, and an answer to what it says."""
        try:
            with self.dial(self.place, (address, port)) as sock:
                return bool(speak(sock))
        except ConnectionRefusedError:
            return False


def host_of(bed: Bed) -> Pod:
    return Pod.at(NETNS_FOLDER / bed.lab.store.load().node(bed.here).netns)


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    made = cgroups.create(cgroups.find_root() / f"tk-{os.getpid()}-{name}")
    try:
        yield made
    finally:
        soon(lambda: not cgroups.members(made), "the cgroup is empty")
        cgroups.remove(made)


@pytest.fixture
def kubelet(bed: Bed) -> Iterator[Kubelet]:
    with cgroup("kubelet") as folder, Kubelet(bed, folder) as made:
        made.serve()
        soon(lambda: seen(bed)["pid"] == made.pid, "the agent sees the kubelet")
        yield made


@pytest.fixture(autouse=True)
def strict(bed: Bed) -> Iterator[None]:
    with bed.policy(peer("istio-system")):
        soon(lambda: bed.no(("stranger", "near", PROBED)), "STRICT is in force")
        yield


def seen(bed: Bed) -> Any:
    return bed.agent(bed.here)["kubelet"]


@contextmanager
def probed(bed: Bed, port: int) -> Iterator[None]:
    """The object of `near` has a readiness probe of this port."""
    for path in bed.lab.manifests_folder.rglob("*.yaml"):
        text = path.read_text()
        found: list[dict[str, Any]] = [each for each in yaml.safe_load_all(text) if each]
        mine = [e for e in found if e["kind"] == "Pod" and e["metadata"]["name"] == "near"]
        if mine:
            mine[0]["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": port}}
            write_atomic(path, "\n---\n".join(map(json.dumps, found)).encode(), 0o644)
            try:
                soon(lambda: declared(bed) == [port], f"port {port} is known")
                yield
            finally:
                write_atomic(path, text.encode(), 0o644)
            return
    raise AssertionError("no manifest of near")


def declared(bed: Bed) -> list[int]:
    pods = {pod["name"]: pod for pod in bed.agent(bed.here)["pods"]}
    return list(pods["near"].get("probe_ports", []))


def reach(kubelet: Kubelet, bed: Bed, port: int, name: str = "near") -> list[bool]:
    return [kubelet.passes(bed.address(name, family), port) for family in FAMILIES]


def test_its_probes_pass_where_the_pod_asks_for_them_and_nobody_elses(
    bed: Bed, kubelet: Kubelet
) -> None:
    with cgroup("stranger") as folder, Kubelet(bed, folder) as stranger:
        assert reach(kubelet, bed, PROBED) == [False, False]  # nobody asked
        with probed(bed, PROBED):
            assert reach(kubelet, bed, PROBED) == [True, True]
            assert kubelet.passes(f"::ffff:{bed.address('near', 4)}", PROBED)
            assert reach(kubelet, bed, OTHER) == [False, False]
            assert reach(kubelet, bed, PROBED, "server") == [False, False]  # on another node
            assert reach(stranger, bed, PROBED) == [False, False]
            with probed(bed, OTHER):
                assert reach(kubelet, bed, OTHER) == [True, True]
                assert reach(kubelet, bed, PROBED) == [False, False]
        soon(lambda: declared(bed) == [], "no probe any more")
        assert reach(kubelet, bed, PROBED) == [False, False]


def test_neither_agent_nor_ztunnel_is_needed(bed: Bed, kubelet: Kubelet) -> None:
    with probed(bed, PROBED):
        for part in ("ztunnel", "agent"):
            changes.kill(bed.lab, part, bed.here)
        try:
            assert reach(kubelet, bed, PROBED) == [True, True]
        finally:
            for part in ("agent", "ztunnel"):
                changes.restart(bed.lab, part, bed.here)
        soon(lambda: seen(bed)["recognised"], "the new agent sees it too")
        assert reach(kubelet, bed, PROBED) == [True, True]
        bed.wait_captured()


def test_a_restart_with_another_cgroup_is_followed(bed: Bed, kubelet: Kubelet) -> None:
    with probed(bed, PROBED), cgroup("next") as folder, Kubelet(bed, folder) as following:
        assert reach(following, bed, PROBED) == [False, False]
        kubelet.__exit__(None, None, None)
        soon(lambda: not seen(bed)["recognised"], "its end is seen")
        following.serve()
        soon(lambda: seen(bed)["cgroup"] == str(folder), "and the next one")
        assert reach(following, bed, PROBED) == [True, True]


def test_what_it_sees_is_in_its_checks_and_metrics(bed: Bed, kubelet: Kubelet) -> None:
    checks = {each["code"]: each for each in bed.agent(bed.here, "/check")}
    assert checks["TUL0704"]["result"] == "ok"
    assert seen(bed)["cgroup"] in checks["TUL0704"]["description"]
