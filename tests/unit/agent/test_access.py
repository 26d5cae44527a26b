"""The way to the control plane, before there is any."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.access import Access
from agent.intents import NoControl


def test_without_a_stream_there_is_nobody_to_report_to(tmp_path: Path) -> None:
    access = Access("127.0.0.1:1", tmp_path / "root.pem", "control", None)
    with pytest.raises(NoControl, match="not connected"):
        asyncio.run(access.report(b""))


def test_a_root_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    access = Access("127.0.0.1:1", tmp_path / "root.pem", "control", None)

    async def connect() -> None:
        async with access.stream():
            raise AssertionError("connected")

    with pytest.raises(NoControl, match=r"read .*root\.pem: No such file"):
        asyncio.run(connect())
    (tmp_path / "root.pem").write_text("# Tulle")
    with pytest.raises(NoControl, match=r"root\.pem: no certificate in PEM"):
        asyncio.run(connect())
