"""Pins of nodes that are no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.checks.check import Result
from agent.checks.leftovers import left, left_behind
from agent.config import pin_root
from control.kit import lock
from tests.unit.agent.agent_example import example


def test_only_a_node_that_had_an_agent_here_and_has_none_is_named(tmp_path: Path) -> None:
    run_dir, own = tmp_path / "run", pin_root(tmp_path, "now.internal")
    assert left(own, run_dir) == [], "no mesh was ever here"
    for name in ("now.internal", "old.internal", "alive", "elsewhere"):
        pin_root(tmp_path, name).mkdir(parents=True)
    for name in ("now.internal", "old.internal", "unpinned"):
        with lock.held(run_dir / name / "agent.lock", "a test"):
            pass
    with lock.held(run_dir / "alive" / "agent.lock", "a test"):
        assert left(own, run_dir) == ["old.internal"]


def test_the_check_warns_and_says_how_to_end_it(tmp_path: Path) -> None:
    config = replace(example(tmp_path).config, bpffs=tmp_path)
    assert left_behind(config).result is Result.OK
    pin_root(tmp_path, "old").mkdir(parents=True)
    with lock.held(config.run_dir / "old" / "agent.lock", "a test"):
        assert left_behind(config).result is Result.OK
    found = left_behind(config)
    assert (found.result, found.error) == (Result.WARNING, "old")
    assert "--uninstall" in found.hint
