"""`tulle waypoint`: the list, and one's processes with an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import run, save
from tests.unit.agent.cli.views.test_waypoints import DONE, REFUSED, client, page


def saved(folder: Path, *clients: dict[str, Any], nack: dict[str, str] | None = None) -> str:
    mesh = example()
    mesh.control["waypoints"] = [page(*clients, nack=nack)]
    return save(folder, mesh)


def test_waypoints_are_listed(tmp_path: Path) -> None:
    lines = run("waypoint", "list", "-f", saved(tmp_path, client("a", Cluster=DONE))).stdout
    assert [line.split() for line in lines.splitlines()] == [
        ["NAMESPACE", "WAYPOINT", "PROCESSES", "SERVICES", "STATE"],
        ["shop", "gate", "1", "0", "in", "step"],
    ]


def test_a_mesh_without_waypoints(dump: str) -> None:
    found = run("waypoint", "list", "-f", dump)
    assert (found.stdout, found.exit_code) == ("", 0)
    assert "no waypoints" in found.stderr


def test_one_that_is_in_step_is_well(tmp_path: Path) -> None:
    found = run("waypoint", "status", "shop/gate", "-f", saved(tmp_path, client("a", Cluster=DONE)))
    assert found.exit_code == 0
    assert found.stdout.splitlines()[1].split()[:2] == ["a", "n1"]


def test_one_that_nobody_follows_or_that_refused_is_not(tmp_path: Path) -> None:
    found = run("waypoint", "status", "shop/gate", "-f", saved(tmp_path))
    assert (found.exit_code, found.stdout) == (1, "")
    assert "no process follows it" in found.stderr
    nack = {"client": "x", "type": "Listener", "at": "2026-01-01T00:00:00Z", "error": "bad port"}
    file = saved(tmp_path, client("a", Listener=REFUSED), nack=nack)
    found = run("waypoint", "status", "shop/gate", "-f", file)
    assert found.exit_code == 1
    assert "refused Listener" in found.stdout
    assert "bad port" in found.stderr
    told = json.loads(run("waypoint", "status", "shop/gate", "-f", file, "-o", "json").stdout)
    assert told[0]["pod"] == "a"


def test_one_that_is_not_there(tmp_path: Path) -> None:
    found = run("waypoint", "status", "shop/typo", "-f", saved(tmp_path))
    assert isinstance(found.exception, ConfigError)
    with pytest.raises(ConfigError, match="no waypoint 'shop/typo'"):
        raise found.exception
