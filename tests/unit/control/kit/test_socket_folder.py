"""Private folders for sockets: made where there is room, and never left behind for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from control.kit import socket_folder
from control.kit.errors import ConfigError
from control.kit.socket_folder import private_folder, remove_abandoned


def test_a_killed_process_leaves_no_folder_once_another_starts_or_its_mesh_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(socket_folder, "_PARENTS", (str(tmp_path), "/proc/nowhere"))
    abandoned, strange, file = (tmp_path / f"tulle-control-{each}" for each in ("a", "b", "c"))
    strange.mkdir()
    (strange / "precious").touch()
    file.touch()

    def abandon() -> None:
        abandoned.mkdir()
        (abandoned / "grpc").touch()

    abandon()
    made = [private_folder() for _ in range(2)]
    folders = {Path(folder.name) for folder, _ in made}
    assert set(tmp_path.iterdir()) == {strange, file, *folders}
    abandon()
    remove_abandoned()
    assert set(tmp_path.iterdir()) == {strange, file, *folders}
    for folder, handle in made:
        folder.cleanup()
        os.close(handle)
    assert set(tmp_path.iterdir()) == {strange, file}


def test_a_full_disk_does_not_keep_a_folder_from_being_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket_folder, "_PARENTS", ("/proc/nowhere", "/dev/shm"))
    folder, handle = private_folder()
    folder.cleanup()
    os.close(handle)
    monkeypatch.setattr(socket_folder, "_PARENTS", ("/proc/nowhere",))
    with pytest.raises(ConfigError):
        private_folder()
