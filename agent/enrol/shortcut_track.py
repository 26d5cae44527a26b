"""Makes the shortcuts of captured pods beside everything else, one at a time.

The kernel waits for all its processors before it has put one on a device: ten milliseconds, in
which the agent would do nothing else for any pod. Without one a pod is served as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing

from agent import registry
from agent.datapath.errors import DatapathError
from agent.datapath.pods import PodCapture
from agent.datapath.shortcuts import MadeShortcut, Shortcuts
from agent.enrol.aside import made_aside
from agent.enrol.facts import Facts
from agent.registry import Registration
from control.kit.errors import MeshError
from control.kit.log import event
from control.kit.work_queue import WorkQueue
from control.model.address import Address

log = logging.getLogger("enrol")


class ShortcutTrack:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._waiting: WorkQueue[str, Shortcuts] = WorkQueue()  # by uid: no more of them than pods

    def captured(self, uid: str, shortcuts: Shortcuts | None) -> None:
        if shortcuts is not None:
            self._waiting.add(uid, shortcuts)

    async def run(self) -> None:
        while True:
            for uid, shortcuts in await self._waiting.take(1):
                await self._make(uid, shortcuts)

    async def _make(self, uid: str, shortcuts: Shortcuts) -> None:
        registration, pod = self._facts.known.get(uid), self._facts.book.pods().get(uid)
        if registration is None or pod is None or pod.capture is None:
            return
        addresses = pod.capture.addresses
        try:
            make = shortcuts.begin(uid)
            if make is None:
                return
            with closing(await made_aside(lambda: _made(registration, addresses, make))) as made:
                shortcuts.finish(uid, made)
        except DatapathError as exc:
            shortcuts.refused(exc)
        except (MeshError, OSError) as exc:  # it is gone, or about to be found so
            event(log, logging.DEBUG, "pod.no_shortcut", uid=uid, error=exc)


def _made(
    registration: Registration,
    addresses: tuple[Address, ...],
    make: Callable[[PodCapture], MadeShortcut],
) -> MadeShortcut:
    with registry.opened_again(registration) as netns_fd:
        return make(PodCapture(registration.uid, netns_fd, addresses, ()))
