"""The stand-in for the direct path: says why it is off, and takes every call."""

from __future__ import annotations

import asyncio
import socket

from agent.direct.off import Off


def test_it_says_why_and_takes_every_call() -> None:
    off = Off("no_direct")
    off.newest(7)
    off.captured("uid", 1, ())
    off.released("uid")
    assert off.status() == {"on": False, "reason": "no_direct"}


def test_a_ztunnel_that_dials_is_refused() -> None:
    listener = socket.socket(socket.AF_UNIX)
    asyncio.run(Off("no_direct").run(listener))
    assert listener.fileno() == -1
