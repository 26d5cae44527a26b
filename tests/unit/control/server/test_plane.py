"""Before the ports are open: the first reading, a stop, and where the pages are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.server.plane import _unless, _where


async def soon(found: str) -> str:
    await asyncio.sleep(0)
    return found


async def fails() -> str:
    raise ConfigError("broken")


def test_a_reading_is_waited_for_until_a_stop() -> None:
    async def test() -> None:
        stop = asyncio.Event()
        assert await _unless(stop, soon("all")) == "all"
        asyncio.get_running_loop().call_soon(stop.set)
        assert await _unless(stop, asyncio.Event().wait()) is None

    asyncio.run(test())


def test_a_reading_that_fails_is_its_own_error_and_no_groups() -> None:
    with pytest.raises(ConfigError, match="broken"):
        asyncio.run(_unless(asyncio.Event(), fails()))


def test_pages_are_at_a_path_or_on_this_host() -> None:
    assert _where("/run/x.sock") == Path("/run/x.sock")
    assert _where("127.0.0.1:15000") == "127.0.0.1:15000"
    with pytest.raises(ConfigError, match="loopback"):
        _where("10.0.0.1:15000")
