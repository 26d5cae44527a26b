"""A walk over a folder of manifests: which files count, and what is a problem."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from control.server.sources import walk
from control.server.sources.directory import is_folder
from control.server.sources.walk import see_folder


def names(folder: Path) -> list[str]:
    look = see_folder(folder)
    assert look.error == ""
    return sorted(str(Path(each).relative_to(folder)) for each in look.files)


def problems(folder: Path) -> list[str]:
    found = see_folder(folder).problems
    assert {each.reason for each in found} <= {"unreadable"}
    return sorted(Path(each.file).name for each in found)


def test_hidden_and_foreign_names_are_not_read(tmp_path: Path) -> None:
    for name in (".a.yaml", "b.txt", "c.yaml~", "..data/d.yaml", "e/f.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["e/f.json"]


def test_a_link_that_leads_nowhere_is_a_problem_or_a_file_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "nowhere.yaml")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "b.yaml")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    (tmp_path / "d").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["a.yaml", "b.yaml"]
    assert problems(tmp_path) == ["c", "d"]
    assert sorted(see_folder(tmp_path).lost) == [str(tmp_path / "c"), str(tmp_path / "d")]


def test_what_is_no_file_is_a_problem_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "null").symlink_to("/dev/null")  # not by its name either
    (tmp_path / "a.yaml").touch()
    assert names(tmp_path) == ["a.yaml"]
    assert problems(tmp_path) == ["device.yaml", "pipe.yaml"]


def test_linked_folders_are_followed_once_and_real_ones_first(tmp_path: Path) -> None:
    releases, root = tmp_path / "releases", tmp_path / "manifests"
    (releases / "7").mkdir(parents=True)
    (releases / "7" / "p.yaml").touch()
    (root / "sub").mkdir(parents=True)
    (root / "current").symlink_to(releases / "7")
    (root / "again").symlink_to(releases / "7")
    (root / "sub" / "up").symlink_to(root)
    assert names(root) == ["again/p.yaml"]
    assert problems(root) == []
    (releases / "8").mkdir()
    (root / "again").unlink()
    (root / "current").unlink()
    (root / "current").symlink_to(releases / "8")
    assert names(root) == []


def test_a_folder_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "FOLDER_BYTES_MAX", 3 * walk.BLOCK_BYTES)
    for number in range(3):
        (tmp_path / f"{number}.yaml").touch()
    assert len(names(tmp_path)) == 3
    (tmp_path / "4.yaml").touch()
    assert "counting 4 KiB for each small file" in see_folder(tmp_path).error


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_folder_that_fails_says_so_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def failing(path: object) -> os.stat_result:
        raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(os, "stat", failing)
    assert os.strerror(error) in see_folder(tmp_path).error
    assert not is_folder(tmp_path)
