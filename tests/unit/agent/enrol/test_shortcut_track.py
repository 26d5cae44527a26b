"""Shortcuts that are made after the capture: for pods that are still there, without harm if not."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from agent import registry
from agent.datapath.errors import DatapathError
from agent.datapath.shortcuts import Shortcutting
from agent.enrol.facts import Facts
from agent.enrol.plan import CapturePod
from agent.enrol.shortcut_track import ShortcutTrack
from tests.unit.agent.enrol.conftest import POD


class Link:
    closed = False

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shortcuts:
    """The kernel's part; `refuses`: it says no to the link."""

    def __init__(self) -> None:
        self.link = Link()
        self.refuses = False
        self.events: list[str] = []
        self.ended = asyncio.Event()

    def begin(self, pod: Any) -> Shortcutting:
        self.events.append(f"begin {pod.uid}")
        making: Any = self.make
        return Shortcutting(8, 3, making)

    def make(self) -> Link:
        if self.refuses:
            raise DatapathError("no tcx")
        return self.link

    def finish(self, uid: str, begun: Shortcutting, link: Link) -> None:
        assert not link.closed
        self.events.append(f"finish {uid}")
        self.ended.set()

    def refused(self, error: DatapathError) -> None:
        self.events.append(str(error))
        self.ended.set()


def made(facts: Facts, shortcuts: Any) -> None:
    async def scenario() -> None:
        track = ShortcutTrack(facts)
        async with asyncio.timeout(5.0), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(track.run())
            track.captured("gone", shortcuts)
            track.captured(POD.uid, shortcuts)
            await shortcuts.ended.wait()
            task.cancel()

    asyncio.run(scenario())


@pytest.fixture
def captured(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setattr(registry, "opened_again", lambda registration: nullcontext(0))
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.book.captured(CapturePod(POD.uid, 7, POD.cookie, POD.addresses))
    return facts


def test_a_captured_pod_gets_its_shortcut_and_the_link_is_the_pins_alone(captured: Facts) -> None:
    shortcuts = Shortcuts()
    made(captured, shortcuts)
    assert shortcuts.events == ["begin uid", "finish uid"]
    assert shortcuts.link.closed


def test_a_kernel_that_refuses_is_an_obstacle_and_no_failure(captured: Facts) -> None:
    shortcuts = Shortcuts()
    shortcuts.refuses = True
    made(captured, shortcuts)
    assert shortcuts.events[0] == "begin uid"
    assert "no tcx" in shortcuts.events[1]
    assert captured.book.pods()[POD.uid].failure is None
