"""Shortcuts that are made after the capture: for pods that are still there, without harm if not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from agent import registry
from agent.datapath.errors import DatapathError
from agent.datapath.pods import PodCapture
from agent.datapath.shortcuts import MadeShortcut
from agent.enrol.facts import Facts
from agent.enrol.plan import CapturePod
from agent.enrol.shortcut_track import ShortcutTrack
from tests.unit.agent.enrol.conftest import POD


class Link:
    closed = False

    def close(self) -> None:
        self.closed = True


class Shortcuts:
    """The kernel's part; `refuses`: it says no to the link."""

    def __init__(self) -> None:
        self.link = Link()
        self.refuses = False
        self.events: list[str] = []
        self.ended = asyncio.Event()

    def begin(self, uid: str) -> Callable[[PodCapture], MadeShortcut]:
        self.events.append(f"begin {uid}")
        return self.make

    def make(self, pod: PodCapture) -> MadeShortcut:
        assert threading.current_thread() is not threading.main_thread()  # which serves all pods
        if self.refuses:
            raise DatapathError("no tcx")
        link: Any = self.link
        return MadeShortcut(8, 3, 0, link)

    def finish(self, uid: str, made: MadeShortcut) -> None:
        assert not self.link.closed
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
