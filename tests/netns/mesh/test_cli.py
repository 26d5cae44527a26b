"""`tulle` beside processes that are stopped or dead: what answers is shown at once, and what does
not is named. And a policy that means less than it says is no secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.lab import changes
from tests.support.lab.mesh_bed import Bed, soon

READ_S = 8.0  # two seconds for the silent, the rest for Python on a busy machine
READERS = ("status", "workloads", "services", "certificates", "connections", "maps", "version")
LAYER_7 = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: layer7, namespace: mesh}
spec:
  selector: {matchLabels: {app: nobody}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
"""
ODD = LAYER_7.replace("layer7", "odd").replace("rules:", "action: ALLOWW\n  rules:")


def tulle(bed: Bed, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.cli.main", "--run-dir", str(bed.lab.run_dir), *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


@contextmanager
def stopped(bed: Bed, *names: str) -> Iterator[None]:
    processes = bed.lab.store.load().processes
    with ExitStack() as stack:
        for name in names:
            os.kill(processes[name].pid, signal.SIGSTOP)
            stack.callback(os.kill, processes[name].pid, signal.SIGCONT)
        yield


def test_a_mesh_that_is_well_is_all_green(bed: Bed) -> None:
    for verb in READERS:
        done = tulle(bed, verb)
        assert (done.returncode, done.stderr) == (0, "" if done.stdout else done.stderr), verb
    done = tulle(bed, "check")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("√\n")


@pytest.mark.parametrize("kind", ["agent", "ztunnel", "control"])
def test_a_stopped_process_is_named_and_costs_little_time(bed: Bed, kind: str) -> None:
    name = kind if kind == "control" else f"{kind}-{bed.here}"
    needs = {
        "agent": ("status", "workloads", "maps", "version"),
        "ztunnel": ("status", "workloads", "services", "certificates", "connections", "version"),
        "control": ("status", "version", "policies"),
    }[kind]
    with stopped(bed, name):
        for verb in needs:
            started_s = time.monotonic()
            done = tulle(bed, verb, *(() if verb == "status" else ("--timeout", "500ms")))
            assert time.monotonic() - started_s < READ_S, verb
            assert done.returncode == 2, verb
            assert f"{name}: " in done.stderr
            assert "no answer in time" in done.stderr
            if verb in ("status", "version", "maps"):
                assert bed.there in done.stdout, "the others are shown"
        checked = tulle(bed, "check", "-o", "json")
        assert checked.returncode == 1
        assert json.loads(checked.stdout)["success"] is False


def test_with_every_agent_dead_nothing_is_green(bed: Bed) -> None:
    changes.kill(bed.lab, "agent", None)
    try:
        for node in (bed.here, bed.there):  # as a server of Python 3.13 does when it ends
            (bed.lab.run_dir / node / "agent.sock").unlink(missing_ok=True)
        checked = tulle(bed, "check", "-o", "json")
        assert checked.returncode == 1
        groups = json.loads(checked.stdout)["categories"]
        results = {check["code"]: check["result"] for group in groups for check in group["checks"]}
        assert results["TUL1101"] == "error"
        assert results["TUL1301"] == "warning"
        for verb in ("status", "workloads", "maps"):
            done = tulle(bed, verb)
            assert done.returncode == 2, verb
            assert f"without the answer of agent-{bed.here}, agent-{bed.there}" in done.stderr
    finally:
        changes.restart(bed.lab, "agent", None)
        bed.wait_captured()


def test_a_rule_that_is_dropped_is_told_in_four_places_beside_a_broken_policy(bed: Bed) -> None:
    told = ("AuthorizationPolicy mesh/layer7", "the rule is dropped", "scope is denied")
    applied = tulle(bed, "lab", "apply", "-f", "-", stdin=f"{LAYER_7}---{ODD}")
    try:
        assert applied.returncode == 1
        assert "error: " in applied.stderr
        assert "AuthorizationPolicy mesh/odd" in applied.stderr
        assert all(text in applied.stderr for text in told)
        for words in (("policies", "-n", "mesh"), ("status",), ("check", "-o", "short")):
            done = tulle(bed, *words)
            said = done.stdout + done.stderr
            assert all(text in said for text in (*told, "AuthorizationPolicy mesh/odd")), words
    finally:
        tulle(bed, "lab", "delete", "-f", "-", stdin=f"{LAYER_7}---{ODD}")
    soon(lambda: not bed.control("/notes"), "the note goes with its cause")


def test_levels_are_set_everywhere_and_go_back(bed: Bed) -> None:
    def levels() -> str:
        return tulle(bed, "log", "level", "-o", "json").stdout

    before = levels()
    assert tulle(bed, "log", "level", "-", "warning,access:debug").returncode == 0
    assert '"access"' in levels()
    assert tulle(bed, "log", "level", "-", "access:default").returncode == 0
    assert '"access"' not in levels()
    assert tulle(bed, "log", "reset").returncode == 0
    assert levels() == before
