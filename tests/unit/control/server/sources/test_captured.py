"""The captured set: whole truths by node, on disk before in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.server.sources import captured
from control.server.sources.captured import BadReport, CapturedSet


def test_a_report_replaces_its_nodes_truth_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "captured.json"
    subject = CapturedSet(path)
    assert subject.report("n1", ["a", "b"])
    assert not subject.report("n1", ["b", "a", "a"])
    assert subject.report("n2", ["c"])
    assert subject.report("n1", ["b"])
    homes = {"a": "n1", "b": "n1", "c": "n2"}
    assert CapturedSet(path).in_force(homes) == subject.in_force(homes) == {"b", "c"}
    assert subject.report("n1", [])
    assert CapturedSet(path).in_force(homes) == {"c"}
    assert not subject.report("n3", [])


def test_a_pod_counts_while_its_own_node_reports_it(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured.json")
    subject.report("n1", ["stays", "flickers", "moved"])
    assert subject.in_force({"stays": "n1", "moved": "n2"}) == {"stays"}
    assert subject.in_force({"stays": "n1", "flickers": "n1"}) == {"stays", "flickers"}


def test_reports_are_bounded(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured.json")
    for bad in (map(str, range(captured.UIDS_PER_NODE_MAX + 1)), ["x" * 254]):
        with pytest.raises(BadReport):
            subject.report("n1", bad)
    assert subject.in_force({"1": "n1"}) == frozenset()


@pytest.mark.parametrize("text", ["{", "[]", '{"n1": 5}'])
def test_a_file_that_nobody_understands_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "captured.json").write_text(text)
    with pytest.raises(ConfigError):
        CapturedSet(tmp_path / "captured.json")
