"""A pod of the lab before it runs: its files, its environment, and what keeps it from starting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.lab.plan import AddressPair
from agent.lab.pods import LabPods
from agent.lab.spec import PodSpec, Ready
from agent.lab.state import LabState, PodRecord
from control.kit.errors import ConfigError

SPEC = PodSpec("shop", "web", "n1", ("true",), "/", {"PORT": "80"})
POD = PodRecord(SPEC, "uid", "ns", "pod1", AddressPair("10.0.0.1", "fd00::1"))


@pytest.fixture
def pods(tmp_path: Path) -> LabPods:
    return LabPods(tmp_path, LabState("x", "/f", True, 1, str(tmp_path / "cgroup")))


def test_a_pod_has_files_and_a_cgroup_of_its_own(pods: LabPods, tmp_path: Path) -> None:
    assert pods.log(POD) == tmp_path / "logs" / "shop-web.log"
    assert pods.hosts(POD) == tmp_path / "hosts" / "shop-web"
    assert pods.cgroup(POD) == tmp_path / "cgroup" / "shop-web"


def test_a_pod_knows_its_name_and_addresses(pods: LabPods) -> None:
    environment = pods.environment(POD)
    assert (environment["POD_NAME"], environment["POD_IPS"]) == ("web", "10.0.0.1,fd00::1")
    assert (environment["HOME"], environment["PORT"]) == ("/root", "80")


def test_an_unmeshed_pod_asks_no_agent(pods: LabPods) -> None:
    pods.register(POD)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"workdir": "/absent"}, "workdir /absent is not a folder"),
        ({"user": "nobody-of-this-name"}, "no user 'nobody-of-this-name'"),
        ({"files": {"/etc/hosts": "/absent"}}, "files: /absent does not exist"),
    ],
)
def test_a_pod_that_cannot_start_says_why(
    pods: LabPods, change: dict[str, object], told: str
) -> None:
    wrong = replace(POD, spec=replace(SPEC, **change))  # type: ignore[arg-type]  # of a spec
    with pytest.raises(ConfigError, match=told):
        pods._check(wrong)


def test_readiness_is_a_text_in_the_log_or_nothing_at_all(pods: LabPods) -> None:
    assert pods._ready(POD)
    waiting = replace(POD, spec=replace(SPEC, ready=Ready(log="ready to serve")))
    pods.log(POD).parent.mkdir()
    pods.log(POD).write_text("starting\n")
    assert not pods._ready(waiting)
    pods.log(POD).write_text("ready to serve\n")
    assert pods._ready(waiting)


def test_a_waypoint_has_our_programs_surroundings_and_its_own_word(pods: LabPods) -> None:
    waypoint = replace(POD, spec=replace(SPEC, waypoint="gate", command=()))
    assert "PYTHONPATH" in pods._process_environment(waypoint)
    assert "PYTHONPATH" not in pods._process_environment(POD)
    assert not pods._ready(waypoint)
    assert pods._ready(POD)
