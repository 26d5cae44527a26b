"""Any source, with its last good state on disk: a start without the source serves that.

Two rules. A state that is kept is served only while the source has not given one of its own, so
never in place of something newer. And a source that suddenly says there is nothing, or says so when
it starts, is doubted: what was in force stays, until it says something again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.server.sources.folder import Snapshot
from control.server.sources.objects import Objects
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.state_file import StateFile

log = logging.getLogger("source")

TROUBLED_S: Final = 2.0  # one refused connection may be the server's restart
PATIENCE_S: Final = 30.0  # a large cluster's first lists take less
TICK_S: Final = 1.0
SAVE_EVERY_S: Final = 2.0
SAVE_SHARE: Final = 50  # writing takes at most a fiftieth of the time
TOUCH_EVERY_S: Final = 30.0
# Fewer objects may all be meant to go; nobody takes out more at once.
GUARDED_MIN: Final = 10


class ObjectSource(Protocol):
    """The place that objects come from."""

    @property
    def name(self) -> str:
        """For people, and for tools on the same host: a folder's path, or a server's address."""

    @property
    def trouble(self) -> str:
        """The reason that it may not know how things are for; empty while it knows."""

    def opened(self) -> AbstractAsyncContextManager[AsyncIterator[Snapshot]]:
        """Snapshots of everything, the first as soon as it is complete, then one a change."""


@dataclass(frozen=True, slots=True)
class SourceStanding:
    """`is_kept`: what is served was read from disk. `age_s`: time since it was known to be how
    things are; 0 while it is."""

    is_kept: bool
    age_s: float
    trouble: str


class LastingSource:
    def __init__(self, inner: ObjectSource, file: StateFile, clock: Clock) -> None:
        self._inner = inner
        self._file = file
        self._clock = clock
        self._latest: Snapshot | None = None
        self._news = asyncio.Event()
        self._given: Snapshot | None = None  # in force
        self._is_kept = False
        self._doubt = ""  # told
        self._current_at: datetime | None = None  # what is in force was true then
        self._saved: Objects | None = None
        self._touched_s = 0.0

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def standing(self) -> SourceStanding:
        trouble = self._doubt or self._inner.trouble
        if self._given is None or self._current_at is None:
            return SourceStanding(False, 0.0, trouble)
        is_current = not self._is_kept and not trouble
        passed = self._clock.now() - self._current_at
        age_s = 0.0 if is_current else max(0.0, passed.total_seconds())
        return SourceStanding(self._is_kept, age_s, trouble)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[Snapshot]]:
        failure: MeshError | OSError | None = None
        async with self._inner.opened() as snapshots, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._take(snapshots), name="source.take"),
                tasks.create_task(self._keep(), name="source.keep"),
            ]
            try:
                yield self._snapshots()
            except (MeshError, OSError) as exc:
                failure = exc  # the caller's own: not to be one of a group
            finally:
                for task in running:
                    task.cancel()
                self._save_last()
        if failure is not None:
            raise failure

    async def _take(self, snapshots: AsyncIterator[Snapshot]) -> None:
        async for each in snapshots:
            self._latest = each
            self._news.set()

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        started_s = self._clock.monotonic_s()
        may_have_kept = True
        while True:
            self._news.clear()
            found = self._latest
            if found is not None and (chosen := await self._chosen(found)) is not self._given:
                self._given = chosen
                yield chosen
            elif found is None and may_have_kept and self._gives_up(started_s):
                may_have_kept = False
                why = self._inner.trouble or f"not complete after {PATIENCE_S:.0f} s"
                if (kept := await self._kept(why)) is not None:
                    self._given = kept
                    yield kept
            if not self._news.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S if self._given is None else None):
                        await self._news.wait()

    def _gives_up(self, started_s: float) -> bool:
        passed_s = self._clock.monotonic_s() - started_s
        return passed_s >= (TROUBLED_S if self._inner.trouble else PATIENCE_S)

    async def _chosen(self, found: Snapshot) -> Snapshot:
        """The snapshot, or what stays in force in its place."""
        before = self._given
        if found.doubt and before is None:
            before = await self._kept(found.doubt, GUARDED_MIN)
        if not found.doubt or before is None or _size(before.objects) < GUARDED_MIN:
            self._believe()
            return found
        if found.doubt != self._doubt:
            self._doubt = found.doubt
            event(log, logging.ERROR, "source.doubted", source=self.name, error=found.doubt)
        doubted = Problem(
            self.name, 0, "", UNREADABLE, f"{found.doubt}; the last good state stays in force"
        )
        problems = (doubted, *(each for each in found.problems if each != doubted))
        if self._given is not None and problems == self._given.problems:
            return self._given
        return replace(before, problems=problems)

    def _believe(self) -> None:
        if self._is_kept or self._doubt:
            event(log, logging.WARNING, "source.back", source=self.name)
        self._is_kept, self._doubt = False, ""
        self._current_at = self._clock.now()

    async def _kept(self, why: str, objects_min: int = 0) -> Snapshot | None:
        """The state on disk, with a problem that says so; None: there is none of that size."""
        state = await asyncio.to_thread(self._file.load)
        if state is None or _size(state.objects) < objects_min:
            return None
        self._is_kept, self._current_at = True, state.current_at
        self._saved = state.objects
        moment = f"{state.current_at:%Y-%m-%d %H:%M:%S} UTC"
        age_s = round((self._clock.now() - state.current_at).total_seconds())
        event(
            log,
            logging.WARNING,
            "source.kept_state",
            source=self.name,
            of=moment,
            age_s=age_s,
            objects=_size(state.objects),
            error=why,
        )
        message = f"cannot be read since the start; the last good state, of {moment}, is in force"
        return Snapshot(state.objects, (Problem(self.name, 0, "", UNREADABLE, message),), {})

    async def _keep(self) -> None:
        """Write down what is in force, if the source itself gave it, now and then."""
        while True:
            await asyncio.sleep(TICK_S)
            self._look()
            objects = self._unsaved()
            if objects is None:
                continue
            started_s = self._clock.monotonic_s()
            now = self._clock.now()
            if await asyncio.to_thread(self._file.save, objects, now):
                self._touched_s = started_s
            self._saved = objects
            took_s = self._clock.monotonic_s() - started_s
            await asyncio.sleep(max(SAVE_EVERY_S - TICK_S, took_s * SAVE_SHARE))

    def _look(self) -> None:
        """Note that what is in force is how things are, here and on disk."""
        if self._given is None or self._is_kept or self._doubt or self._inner.trouble:
            return
        self._current_at = self._clock.now()
        now_s = self._clock.monotonic_s()
        if self._saved is self._given.objects and now_s - self._touched_s >= TOUCH_EVERY_S:
            self._touched_s = now_s
            self._file.touch(self._current_at)

    def _unsaved(self) -> Objects | None:
        given = self._given
        if given is None or self._is_kept or self._doubt or given.objects is self._saved:
            return None
        return given.objects

    def _save_last(self) -> None:
        """At the end: what was in force is what the next start should find."""
        objects = self._unsaved()
        if objects is not None:
            self._file.save(objects, self._current_at or self._clock.now())


def _size(objects: Objects) -> int:
    return sum(objects.counts().values())
