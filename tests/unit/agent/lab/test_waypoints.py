"""Waypoints of a lab: the command, the token, and when one is ready."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.fetch import FetchError
from agent.lab import daemons, waypoints
from agent.lab.plan import AddressPair
from agent.lab.spec import PodSpec
from agent.lab.state import PodRecord

SPEC = PodSpec("shop", "gate-1", "n1", (), "/", waypoint="gate")
POD = PodRecord(SPEC, "uid", "ns", "pod1", AddressPair("10.0.0.1", "fd00::1"))


def test_its_command_line_is_one_that_the_program_takes(tmp_path: Path) -> None:
    command = waypoints.command(tmp_path, POD)
    assert command[command.index("--gateway") + 1] == "shop/gate"
    assert command[command.index("--pod-name") + 1] == "gate-1"
    done = subprocess.run(
        [*command, "--concurrency", "0"],  # the last word, and the only one that is wrong
        env=daemons.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--concurrency" in done.stderr


def test_its_token_is_its_accounts_on_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def token_of(state: Path, what: str, *flags: str) -> bytes:
        asked.append(flags)
        return b"t"

    monkeypatch.setattr(waypoints, "token_of", token_of)
    waypoints.make_token(tmp_path, POD)
    assert asked == [("--node", "n1", "--service-account", "shop/gate")]
    (token,) = (tmp_path / waypoints.FOLDER).iterdir()
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("t", 0o600)
    assert str(token) in waypoints.command(tmp_path, POD)
    waypoints.forget(tmp_path, POD)
    waypoints.forget(tmp_path, POD)
    assert not token.exists()


def test_it_is_ready_when_nothing_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [{"pending": ["envoy"]}, {"pending": []}]
    monkeypatch.setattr(waypoints, "get_json", lambda *_, **__: answers.pop(0))
    assert [waypoints.is_ready(tmp_path, POD) for _ in range(2)] == [False, True]

    def nobody(*_: object, **__: object) -> None:
        raise FetchError("nobody there")

    monkeypatch.setattr(waypoints, "get_json", nobody)
    assert not waypoints.is_ready(tmp_path, POD)


def test_a_variable_of_the_pod_does_not_lead_our_program_astray() -> None:
    settings = waypoints.settings({"PATH": "/pods", "POD_NAME": "x"})
    assert settings["PATH"] == daemons.environment()["PATH"]
    assert settings["POD_NAME"] == "x"
