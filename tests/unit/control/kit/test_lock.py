"""A folder has one process: the second is refused, and a killed one leaves no lock."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from control.kit.lock import AlreadyServed, held, held_folder, held_in_turn, is_held

HOLDER = """
import sys
from pathlib import Path
from control.kit.lock import held
with held(Path(sys.argv[1]), "another one"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_has_it_and_a_killed_holder_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "node.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        expected = f"another one, pid {holder.pid}, serves {path.parent}"
        for _ in range(2):
            with pytest.raises(AlreadyServed, match=expected), held(path, "another one"):
                pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with held(path, "another one"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_it_is_free_again_after_its_block(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    for _ in range(2):
        with held(path, "another one"):
            pass
    assert path.stat().st_mode & 0o777 == 0o600


def test_whoever_asks_learns_if_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    assert not is_held(path)
    with held(path, "a test"):
        assert is_held(path)
    assert not is_held(path)


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "x.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), held(tmp_path / "x.lock", "another one"):
        pass
    assert not (tmp_path / "precious").exists()


def test_a_holder_without_a_number_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with held(path, "another one"):
        path.write_text("nonsense")
        with pytest.raises(AlreadyServed, match="pid unknown"), held(path, "another one"):
            pass


def test_a_successor_waits_for_its_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "node.lock"
    order: list[str] = []

    async def successor() -> None:
        async with held_in_turn(path, "another one"):
            order.append("second")

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            with held(path, "another one"):
                tasks.create_task(successor())
                await asyncio.sleep(0)  # the successor has looked, and waits
                assert [each.getMessage() for each in caplog.records] == ["lock.awaited"]
                order.append("first")
        with held(path, "another one"):
            pass  # and it has given it back

    asyncio.run(scenario())
    assert order == ["first", "second"]


def test_a_full_disk_keeps_nobody_from_holding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "lock"
    monkeypatch.setattr(os, "pwrite", full)
    with held(path, "me"), pytest.raises(AlreadyServed, match="pid unknown"), held(path, "me"):
        pass


def test_a_folder_has_one_holder_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pins" / "agent"
    for _ in range(2):
        with held_folder(path, "another one"):
            assert is_held(path)
            with (
                pytest.raises(AlreadyServed, match=f"another one has {path.parent}"),
                held_folder(path, "another one"),
            ):
                pass
        assert not is_held(path)
    assert list(path.parent.iterdir()) == [path]
