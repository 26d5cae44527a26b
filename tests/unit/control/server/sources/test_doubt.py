"""Nodes in doubt, and the seal of a folder that a full disk cannot keep whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.server.sources import doubt
from control.server.sources.doubt import Doubt, Seal


def test_a_node_is_in_doubt_until_it_reports_or_the_time_is_over() -> None:
    subject = Doubt(True)
    assert subject.about("n1")
    assert not subject.about(""), "a pod without a node is captured nowhere"
    assert subject.hear("n1")
    assert not subject.hear("n1")
    assert (subject.about("n1"), subject.about("n2")) == (False, True)
    subject.end()
    assert not subject.about("n2")
    assert not Doubt(False).about("n1")
    assert not Doubt(False).hear("n1")


def test_only_nodes_that_had_an_agent_are_in_doubt_where_that_is_known() -> None:
    subject = Doubt(True)
    subject.only = frozenset({"n1"})
    assert subject.about("n1")
    assert not subject.about("n2")
    assert not subject.hear("n2")
    subject.only = frozenset({"n1", "n2"})
    assert not subject.about("n2"), "it has reported before anybody knew of its agent"


def test_nodes_that_report_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "NODES_MAX", 1)
    subject = Doubt(True)
    subject.hear("n1")
    assert subject.hear("n2")
    assert subject.about("n2"), "to be on the safe side"


def again(path: Path) -> bool:
    seal = Seal(path)
    try:
        return seal.is_whole
    finally:
        seal.close()


def test_a_seal_survives_and_is_broken_in_place(tmp_path: Path) -> None:
    path = tmp_path / "seal"
    subject = Seal(path)
    assert not subject.is_whole, "nobody has ever said so"
    subject.put(True)
    before = path.stat()
    assert again(path)
    subject.put(False)
    assert (subject.is_whole, again(path)) == (False, False)
    after = path.stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


@pytest.mark.parametrize("content", [b"", b"0", b"x", b"\0"])
def test_only_a_whole_seal_is_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "seal"
    path.write_bytes(content)
    assert not again(path)


def test_a_link_or_a_folder_is_no_seal(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        subject = Seal(tmp_path / name)
        subject.put(True)
        assert not subject.is_whole


def test_a_seal_that_cannot_be_overwritten_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that copies on write has no room for even one byte."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "seal"
    subject = Seal(path)
    subject.put(True)
    monkeypatch.setattr(doubt.os, "pwrite", full)
    subject.put(False)
    assert not path.exists()
    subject.put(True)
    assert not subject.is_whole, "no room to say so"
    monkeypatch.undo()
    subject.put(True)
    assert again(path)


def test_a_seal_that_stays_whole_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    subject = Seal(tmp_path / "seal")
    subject.put(True)
    monkeypatch.setattr(doubt.os, "pwrite", broken)
    monkeypatch.setattr(Path, "unlink", broken)
    with pytest.raises(ConfigError, match=r"seal: .*[Rr]ead-only.*removed"):
        subject.put(False)
