"""The captured set: whole truths by node, on disk before in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.enrolment import captured
from control.enrolment.captured import BadReport, CapturedSet
from control.kit.errors import ConfigError


def test_a_report_replaces_its_nodes_truth_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "captured.json"
    subject = CapturedSet(path)
    assert subject.report("n1", ["a", "b"])
    assert not subject.report("n1", ["b", "a", "a"])
    assert subject.report("n2", ["c"])
    assert subject.report("n1", ["b"])
    assert CapturedSet(path).uids() == subject.uids() == {"b", "c"}
    assert subject.report("n1", [])
    assert CapturedSet(path).uids() == {"c"}
    assert not subject.report("n3", [])


def test_pods_that_are_gone_or_moved_drop_out(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured.json")
    subject.report("n1", ["stays", "gone", "moved"])
    assert subject.keep({"stays": "n1", "moved": "n2"})
    assert subject.uids() == {"stays"}
    assert not subject.keep({"stays": "n1"})


def test_reports_are_bounded(tmp_path: Path) -> None:
    subject = CapturedSet(tmp_path / "captured.json")
    for bad in (map(str, range(captured.UIDS_PER_NODE_MAX + 1)), ["x" * 254]):
        with pytest.raises(BadReport):
            subject.report("n1", bad)
    assert subject.uids() == frozenset()


@pytest.mark.parametrize("text", ["{", "[]", '{"n1": 5}'])
def test_a_file_that_nobody_understands_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "captured.json").write_text(text)
    with pytest.raises(ConfigError):
        CapturedSet(tmp_path / "captured.json")
