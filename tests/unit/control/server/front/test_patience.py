"""Patience with a client: only its own time counts."""

from __future__ import annotations

import asyncio

from control.server.callers.refusals import CallRefusal
from control.server.front.patience import ClientPatience
from tests.support.virtual_time import run_virtual


def test_time_that_a_client_waits_for_us_does_not_count() -> None:
    said: list[CallRefusal] = []

    async def test() -> None:
        subject = ClientPatience(said.append)
        subject.expect(CallRefusal.HANDSHAKE_TIMEOUT, 5.0)
        await asyncio.sleep(4)
        subject.stop()
        await asyncio.sleep(100)
        subject.go_on()
        await asyncio.sleep(0.9)
        assert said == []
        await asyncio.sleep(0.2)
        assert said == [CallRefusal.HANDSHAKE_TIMEOUT]
        subject.expect(CallRefusal.ADMISSION_TIMEOUT, 5.0)
        subject.end()
        subject.go_on()
        await asyncio.sleep(100)
        assert len(said) == 1

    run_virtual(test())
