"""`tulle lab exec`, `status` and `logs` of a lab whose pod never started."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.lab import plan, process
from agent.lab.process import Process
from agent.lab.spec import PodSpec
from agent.lab.state import PodRecord, Store
from control.kit.errors import ConfigError
from tests.unit.agent.lab.verbs.conftest import Run


@pytest.fixture(autouse=True)
def _pod_and_process(run_dir: Path) -> None:
    store = Store(run_dir)
    state = store.load()
    spec = PodSpec("shop", "web", "n1", ("x",), "/")
    state.pods["shop/web"] = PodRecord(
        spec, "uid", "ns", "pod1", plan.AddressPair("10.0.0.1", "fd::1")
    )
    state.processes["agent-n1"] = Process(os.getpid(), process.start_of(os.getpid()) or 0)
    state.processes["control"] = Process(os.getpid(), 1)  # the pid is another's by now
    store.save(state)


def test_status_shows_processes_and_pods(run: Run) -> None:
    text = run("status").stdout
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("agent-n1")] == [
        ["agent-n1", "n1", "running"]
    ]
    found = json.loads(run("status", "-o", "json").stdout)
    assert [each["state"] for each in found["processes"]] == ["running", "dead"]
    assert found["pods"][0]["state"] == "not started"
    assert run("status", "-o", "name").stdout == "shop/web\n"


def test_a_log_is_printed_whole(run: Run, run_dir: Path) -> None:
    (run_dir / "logs").mkdir()
    (run_dir / "logs/agent-n1.log").write_text("one\ntwo\n")
    assert run("logs", "agent-n1").stdout == "one\ntwo\n"
    missing = run("logs", "shop/web")
    assert isinstance(missing.exception, ConfigError)
    assert "has not been started" in str(missing.exception)
    assert "and the processes agent-n1, control" in str(run("logs", "nobody").exception)


def test_a_pod_that_does_not_run_takes_no_command(run: Run) -> None:
    result = run("exec", "-n", "shop", "web", "--", "true")
    assert isinstance(result.exception, ConfigError)
    assert "tulle lab logs shop/web" in str(result.exception)
    assert run("exec", "-n", "shop", "web").exit_code == 2
