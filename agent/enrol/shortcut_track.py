"""Makes the shortcuts of captured pods beside everything else, one at a time.

The kernel waits for all its processors before it has put one on a device: ten milliseconds, in
which the agent would do nothing else for any pod. Without one a pod is served as well.
"""

from __future__ import annotations

import asyncio
import logging

from agent import registry
from agent.datapath.errors import DatapathError
from agent.datapath.pods import PodCapture
from agent.datapath.shortcuts import Shortcuts
from agent.enrol.aside import made_aside
from agent.enrol.facts import Facts
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("enrol")


class ShortcutTrack:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._waiting: dict[str, Shortcuts] = {}  # by uid: no more of them than pods
        self._news = asyncio.Event()

    def captured(self, uid: str, shortcuts: Shortcuts | None) -> None:
        if shortcuts is not None:
            self._waiting[uid] = shortcuts
            self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                uid = next(iter(self._waiting))
                await self._make(uid, self._waiting.pop(uid))

    async def _make(self, uid: str, shortcuts: Shortcuts) -> None:
        registration, pod = self._facts.known.get(uid), self._facts.book.pods().get(uid)
        if registration is None or pod is None or pod.capture is None:
            return
        try:
            with registry.opened_again(registration) as netns_fd:
                begun = shortcuts.begin(PodCapture(uid, netns_fd, pod.capture.addresses, ()))
            if begun is not None:
                with await made_aside(begun.link) as link:
                    shortcuts.finish(uid, begun, link)
        except DatapathError as exc:
            shortcuts.refused(exc)
        except (MeshError, OSError) as exc:  # it is gone, or about to be found so
            event(log, logging.DEBUG, "pod.no_shortcut", uid=uid, error=exc)
