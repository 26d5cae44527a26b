"""Command lines of the mesh's processes, and the end of their logs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.lab import daemons
from agent.lab.daemons import Daemons, serves
from agent.lab.plan import node_plan
from agent.lab.state import LabState
from control.kit.errors import ControlError

STATE = LabState("x", "/f", False, 3, "/c", [node_plan("x", "n1", 1)])


def test_a_program_runs_from_a_bare_checkout_too(tmp_path: Path) -> None:
    command = daemons.program("tulle-agent")
    done = subprocess.run(
        [*command, "--version"],
        env=daemons.environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tulle-agent")


def test_logs_lie_in_the_run_folder(tmp_path: Path) -> None:
    assert Daemons(tmp_path, STATE).log("agent-n1") == tmp_path / "logs" / "agent-n1.log"


def test_the_end_of_a_log_is_indented(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert daemons.tail(log) == "    (no log)"
    log.write_text("")
    assert daemons.tail(log) == "    (empty log)"
    log.write_text("".join(f"{number}\n" for number in range(99)))
    lines = daemons.tail(log).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("    84", "    98", daemons.LOG_TAIL_LINES)


def test_a_ztunnel_of_another_make_serves_once_no_pod_waits_for_one() -> None:
    pods = [{"reason": "namespace label ambient"}, {"reason": ""}]
    ztunnels = [{"pid": 7, "newest": True}]
    assert serves({"ztunnels": ztunnels, "pods": pods})
    assert serves({"ztunnels": ztunnels, "pods": []})
    assert not serves({"ztunnels": ztunnels, "pods": [*pods, {"reason": "no_ztunnel"}]})
    assert not serves({"ztunnels": [], "pods": pods})


def test_a_token_that_does_not_come_is_a_failure_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr(daemons, "program", lambda name: (str(silent),))
    monkeypatch.setattr(daemons, "TOKEN_TIMEOUT_S", 0.05)
    with pytest.raises(ControlError, match="no token for node n1"):
        Daemons(tmp_path, STATE).make_token("n1")
