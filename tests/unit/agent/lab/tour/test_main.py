"""The tour takes down a lab of its own, and no other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.lab.lab import Lab

tour = importlib.import_module("agent.lab.tour.__main__")


def test_a_lab_that_is_up_already_stays_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tmp_path)
    (tmp_path / "lab.json").write_text("{}")
    monkeypatch.setattr(Lab, "_tear_down", lambda self, state: pytest.fail("it was taken down"))

    def found(progress: Callable[[str], object]) -> Lab:
        return lab

    monkeypatch.setattr(tour, "Lab", found)
    with pytest.raises(SystemExit) as ended:
        tour.main([], standalone_mode=False)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "lab.json" in told
    assert "Logs" not in told, "they are another lab's"
    assert lab.store.exists()
