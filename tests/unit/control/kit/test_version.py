"""The version is in the name of the installed wheel's folder."""

from __future__ import annotations

from pathlib import Path

from control.kit.version import UNKNOWN, version


def test_the_first_folder_that_has_it_says_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "tulle-1.2.3.dist-info").mkdir(parents=True)
    (second / "tulle-9.9.dist-info").mkdir(parents=True)
    assert version([str(tmp_path / "gone"), str(first), str(second)]) == "1.2.3"


def test_a_checkout_has_none(tmp_path: Path) -> None:
    (tmp_path / "tulleries-1.0.dist-info").mkdir()
    assert version([str(tmp_path)]) == UNKNOWN
