"""A folder that is watched: names, contents, and a folder that is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.cni.inotify import FolderWatch


def test_every_kind_of_change_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    file = folder / "10-a.conflist"

    def write_in_place() -> None:
        with file.open("r+b") as opened:
            opened.write(b"x")

    changes: list[Callable[[], object]] = [
        lambda: file.write_bytes(b"{}"),
        write_in_place,
        lambda: file.rename(folder / "b"),
        lambda: (folder / "b").rename(file),
        lambda: file.chmod(0o600),
        file.unlink,
        folder.rmdir,
    ]

    async def run() -> None:
        news = asyncio.Event()
        with closing(FolderWatch()) as watch:
            assert not watch.follow(folder, news.set)
            folder.mkdir()
            assert watch.follow(folder, news.set)
            async with asyncio.timeout(5):
                for change in changes:
                    await asyncio.sleep(0)
                    news.clear()
                    change()
                    await news.wait()
                folder.mkdir()
                assert watch.follow(folder, news.set)
                await asyncio.sleep(0)
                news.clear()
                file.touch()
                await news.wait()

    asyncio.run(run())
