"""Our files on the host: whole, atomic, and gone without harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.cni import files
from agent.cni.conflist import UnusablePrimary

ELF = b"\x7fELF and more"


def test_the_primary_is_read_with_its_mode_also_through_a_link(tmp_path: Path) -> None:
    assert files.primary_in(tmp_path) is None
    assert files.primary_in(tmp_path / "absent") is None
    real = tmp_path / "real"
    real.write_bytes(b"{}")
    real.chmod(0o600)
    (tmp_path / "10-a.conflist").symlink_to(real)
    assert files.primary_in(tmp_path) == files.Found("10-a.conflist", b"{}", 0o600)


def test_what_cannot_be_a_configuration_is_no_primary(tmp_path: Path) -> None:
    (tmp_path / "10-a.conf").mkdir()
    with pytest.raises(UnusablePrimary):
        files.primary_in(tmp_path)
    (tmp_path / "10-a.conf").rmdir()
    os.mkfifo(tmp_path / "10-a.conf")
    with pytest.raises(UnusablePrimary):
        files.primary_in(tmp_path)


def test_one_name_of_ours_replaces_the_other(tmp_path: Path) -> None:
    files.put(tmp_path, "00-tulle.conflist", b"1", 0o644)
    files.put(tmp_path, "00-00-tulle.conflist", b"2", 0o600)
    assert files.ours_in(tmp_path) == {"00-00-tulle.conflist": b"2"}
    assert (tmp_path / "00-00-tulle.conflist").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["00-00-tulle.conflist"], "nothing is left of the writing"


def test_removal_takes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    others = ["10-a.conflist", "README", "00-tulle.conflist.old"]
    for name in [*others, "00-tulle.conflist", "00-tulle.conflist.cilium_bak"]:
        (tmp_path / name).touch()
    assert files.remove(tmp_path) == ["00-tulle.conflist"]
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    assert files.remove(tmp_path) == []


def test_configurations_that_name_us_are_found_whoever_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "00-multus.conf").write_text('{"type": "tulle-cni"}')
    (tmp_path / "10-a.conflist").write_text('{"type": "x"}')
    (tmp_path / "note").write_text('"tulle-cni"')
    assert files.naming_us(tmp_path) == ["00-multus.conf"]
    assert files.naming_us(tmp_path / "absent") == []


def test_a_program_is_installed_once_and_again_when_it_is_another(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "bin"
    folder.mkdir()
    source.write_bytes(ELF)
    assert files.install_program(source, folder)
    target = folder / "tulle-cni"
    assert target.stat().st_mode & 0o777 == 0o755
    assert not files.install_program(source, folder)
    with target.open("rb") as running:
        source.write_bytes(ELF + b"2")
        assert files.install_program(source, folder)
        assert running.read() == ELF, "a program that runs keeps its file"
    assert files.digest(target) != ""
    assert files.remove_program(folder)
    assert not files.remove_program(folder)
    assert files.digest(target) == ""


@pytest.mark.parametrize("content", [None, b"", b"#!/bin/sh\n"])
def test_what_is_no_program_is_not_installed(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(files.PluginMissing):
        files.install_program(source, tmp_path)
