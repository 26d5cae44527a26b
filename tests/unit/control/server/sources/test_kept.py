"""The last good content of each file: kept over a restart, for its owner alone, never precious."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from control.server.sources.kept import Kept


def test_content_comes_back_after_a_restart(tmp_path: Path) -> None:
    Kept(tmp_path / "kept").put("a.yaml", b"one")
    again = Kept(tmp_path / "kept")
    assert again.get("a.yaml") == b"one"
    assert again.get("b.yaml") is None
    again.put("a.yaml", b"two")
    assert again.get("a.yaml") == b"two"


def test_a_copy_is_for_its_owner_and_its_name_says_nothing(tmp_path: Path) -> None:
    Kept(tmp_path / "kept").put("../secret/\udcff.yaml", b"x")
    (copy,) = (tmp_path / "kept").iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert copy.name.isalnum()


def test_what_was_kept_already_is_not_written_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.put("a.yaml", b"one")
    (copy,) = tmp_path.iterdir()
    before = copy.stat().st_ino
    kept.put("a.yaml", b"one")
    assert copy.stat().st_ino == before


def test_files_are_forgotten_one_by_one_or_all_but_some(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for name in ("a", "b", "c"):
        kept.put(name, name.encode())
    kept.only(["a", "c", "never seen"])
    assert [kept.get(name) for name in ("a", "b", "c")] == [b"a", None, b"c"]
    kept.forget("a")
    kept.forget("a")
    assert kept.get("a") is None


def test_a_broken_disk_is_told_once_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "kept"
    kept = Kept(folder)
    folder.rmdir()
    with caplog.at_level(logging.ERROR):
        kept.put("a", b"x")
        kept.put("b", b"x")
        kept.only([])
    assert [record.message for record in caplog.records] == ["source.not_kept"]
    folder.mkdir()
    kept.put("a", b"x")
    folder.joinpath(next(folder.iterdir()).name).unlink()
    folder.rmdir()
    with caplog.at_level(logging.ERROR):
        kept.put("a", b"x")
    assert len(caplog.records) == 2, "it worked in between"
