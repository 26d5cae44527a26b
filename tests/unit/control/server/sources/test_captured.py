"""The captured set: whole truths by node, kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.server.sources import captured
from control.server.sources.captured import BadReport, CapturedSet


def test_a_report_replaces_its_nodes_truth_and_survives(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured")
    assert subject.take("n1", ["a", "b"]) == {"a", "b"}
    assert not subject.take("n1", ["b", "a", "a"])
    assert subject.take("n2", ["c"]) == {"c"}
    assert subject.changes("n1", ["b"]) == {"a"}
    assert subject.take("n1", ["b"]) == {"a"}
    for node in ("n1", "n2"):
        subject.save(node)
    homes = {"a": "n1", "b": "n1", "c": "n2"}
    assert CapturedSet(tmp_path / "captured").in_force(homes) == subject.in_force(homes)
    assert subject.in_force(homes) == {"b", "c"}
    assert subject.take("n1", []) == {"b"}
    subject.save("n1")
    assert CapturedSet(tmp_path / "captured").in_force(homes) == {"c"}
    assert not subject.take("n3", [])


def test_a_report_costs_what_its_own_node_has(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path)
    for node in ("n1", "n2"):
        subject.take(node, ["a" + node])
        subject.save(node)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    subject.take("n1", ["b"])
    subject.save("n1")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len([path for path in after if after[path] != before.get(path)]) == 1


def test_a_pod_counts_while_its_own_node_reports_it(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured")
    subject.take("n1", ["stays", "flickers", "moved"])
    assert subject.in_force({"stays": "n1", "moved": "n2"}) == {"stays"}
    assert subject.in_force({"stays": "n1", "flickers": "n1"}) == {"stays", "flickers"}
    assert subject.has("n1", "moved")
    assert not subject.has("n2", "moved")


def test_reports_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = CapturedSet(tmp_path / "captured")
    for bad in (map(str, range(captured.UIDS_PER_NODE_MAX + 1)), ["x" * 254]):
        with pytest.raises(BadReport):
            subject.take("n1", bad)
    assert subject.in_force({"1": "n1"}) == frozenset()
    monkeypatch.setattr(captured, "NODES_MAX", 1)
    subject.take("n1", ["a"])
    with pytest.raises(BadReport):
        subject.take("n2", ["a"])


def test_any_name_of_a_node_is_kept(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path)
    for node in ("../../etc/x", "n" * 300, "\udc80", "ü"):
        subject.take(node, ["a"])
        subject.save(node)
        assert CapturedSet(tmp_path).has(node, "a")


@pytest.mark.parametrize("text", ["{", "[]", '{"n1": 5}', '{"node": "n1", "uids": 5}'])
def test_a_file_that_nobody_understands_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(ConfigError):
        CapturedSet(tmp_path)
