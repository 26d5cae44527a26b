"""Keeps our configuration in front of the primary CNI's: as that changes, and when ours is changed.

A stop leaves everything as it is, because it may be a reboot, and pods start before the agent then.
What is on the host goes when `uninstall` is asked for, and only then.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.cni import files
from agent.cni.conflist import PLUGIN, UnusablePrimary, extended, our_name
from agent.cni.inotify import FolderWatch
from agent.cni.places import Places
from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("cni")

LOOK_S = 5.0  # beside the watch: for links into other folders, and for what a watch cannot see
SETTLE_S = 0.05  # between two looks at a folder that changes all the time
# A primary that is written anew is away for moments. One that stays away was removed: a copy of it
# would keep a node ready that has no network.
MISSING_S = 60.0
# Against a program that removes or changes our file whenever it sees it.
FIGHT_FIRST_S, FIGHT_MAX_S = 1.0, 60.0


class Keeper:
    def __init__(
        self,
        places: Places,
        program: Path,
        entry: Callable[[], Mapping[str, Any] | None],
        clock: Clock,
    ) -> None:
        """`program` is ours to install. `entry` is our plugin in the list; None: not yet."""
        self.places = places
        self.problem = ""
        self.primary = ""
        self.written = 0
        self.is_kept = False
        self.is_uninstalled = False
        self._program = program
        self._entry = entry
        self._clock = clock
        self._last: tuple[str, bytes] | None = None  # what we wrote
        self._missing_since_s: float | None = None
        self._fight = Backoff(FIGHT_FIRST_S, FIGHT_MAX_S)
        self._fought_s: float | None = None
        self._not_before_s = 0.0
        self._is_program_new = True
        self._news = asyncio.Event()

    async def run(self) -> None:
        with closing(FolderWatch()) as watch:
            while True:
                self._news.clear()
                watch.follow(self.places.conf, self._news.set)
                self.look()
                await asyncio.sleep(SETTLE_S)
                await self._woken()

    def wake(self) -> None:
        """Look again: the plugin's entry may have changed."""
        self._news.set()

    async def _woken(self) -> None:
        left_s = self._not_before_s - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(min(LOOK_S, left_s) if left_s > 0 else LOOK_S):
                await self._news.wait()
        except TimeoutError:
            return

    def look(self) -> None:
        """Compare, and write what differs."""
        if self.is_uninstalled:
            return
        try:
            problem = self._look()
        except MeshError as exc:
            problem = str(exc)
        except OSError as exc:
            problem = f"{exc.filename or self.places.conf}: {exc.strerror}"
        if problem != self.problem:
            level = logging.WARNING if problem else logging.INFO
            event(log, level, "cni.configuration", problem=problem or "none")
        self.problem = problem

    def _look(self) -> str:
        """Returns what keeps us from it, for people; empty: nothing."""
        self.is_kept = False
        found = files.primary_in(self.places.conf)
        self.primary = "" if found is None else found.name
        if found is None:
            return self._without_primary()
        self._missing_since_s = None
        entry = self._entry()
        if entry is None:
            return "the control plane has not told the namespaces yet"
        name = our_name(found.name)
        try:
            data = extended(found.name, found.data, entry)
        except UnusablePrimary as exc:
            self.is_kept = bool(files.ours_in(self.places.conf))
            raise UnusablePrimary(f"{found.name}: {exc}") from exc
        is_there = files.ours_in(self.places.conf) == {name: data}
        if not is_there:
            self._check_folder(data)
        self._keep_program()
        if not is_there:
            if self._is_fought((name, data)):
                return f"another program changes {name} whenever it is there"
            files.put(self.places.conf, name, data, found.mode)
            self._last = (name, data)
            self.written += 1
            event(log, logging.INFO, "cni.written", file=name, primary=found.name)
        self.is_kept = True
        return ""

    def _check_folder(self, data: bytes) -> None:
        """UnusablePrimary: the runtime's programs are elsewhere, and it would not find ours. On k3s
        the folder has moved, and every pod of a node was stuck by a plugin at the old place."""
        kinds = [each["type"] for each in json.loads(data)["plugins"][:-1]]
        if not self.places.is_told and not any((self.places.bin / each).exists() for each in kinds):
            named = ", ".join(kinds)
            raise UnusablePrimary(f"{self.places.bin} is not the runtime's: it has no {named}")

    def _without_primary(self) -> str:
        ours = files.ours_in(self.places.conf) if self.places.conf.is_dir() else {}
        now_s = self._clock.monotonic_s()
        if self._missing_since_s is None:
            self._missing_since_s = now_s
        if ours and now_s - self._missing_since_s >= MISSING_S:
            files.remove(self.places.conf)
            event(log, logging.WARNING, "cni.removed", reason="the primary configuration is gone")
        return f"no configuration of a primary CNI is in {self.places.conf}"

    def _keep_program(self) -> None:
        target = self.places.bin / PLUGIN
        if self._is_program_new or not target.exists():
            if files.install_program(self._program, self.places.bin):
                event(log, logging.INFO, "cni.installed", program=target)
            self._is_program_new = False

    def _is_fought(self, wanted: tuple[str, bytes]) -> bool:
        """True while we wait before we write once more what was there already."""
        now_s = self._clock.monotonic_s()
        if self._last != wanted:
            return False  # it is news
        if now_s < self._not_before_s:
            return True
        if self._fought_s is None or now_s - self._fought_s > 2 * FIGHT_MAX_S:
            self._fight.reset()
        self._fought_s = now_s
        self._not_before_s = now_s + self._fight.next_s()
        return False

    def resume(self) -> None:
        """Undo `uninstall`."""
        self.is_uninstalled, self._is_program_new, self._last = False, True, None
        self.look()

    def uninstall(self) -> dict[str, Any]:
        """Take our files away, and leave it so; what was done, for people."""
        self.is_uninstalled, self.is_kept, self.problem = True, False, ""
        return uninstall(self.places)

    def status(self) -> dict[str, Any]:
        return {
            "kept": self.is_kept,
            "uninstalled": self.is_uninstalled,
            "problem": self.problem,
            "primary": self.primary,
            "conf_dir": str(self.places.conf),
            "bin_dir": str(self.places.bin),
            "source": self.places.source,
            "program": files.digest(self.places.bin / PLUGIN),
            "written": self.written,
        }


def uninstall(places: Places) -> dict[str, Any]:
    """Configuration first, program last: in between, and if it stops there, pods start."""
    removed = files.remove(places.conf) if places.conf.is_dir() else []
    left = files.naming_us(places.conf)
    reason = ""
    if left:
        reason = f"{', '.join(left)} still names it"
    elif places.keeps_calls:
        reason = "CRI-O calls it for pods that it made with it; remove it when they are gone"
    is_gone = not reason and files.remove_program(places.bin)
    done = {"configurations": removed, "program_removed": is_gone, "program_kept": reason}
    event(log, logging.INFO, "cni.uninstalled", **done)
    return done
