"""Any source, with its last good state on disk: a start without the source serves that.

Two rules. A state that is kept is served only while the source has not given one of its own, so
never in place of something newer. And a source that suddenly says there is nothing, or says so when
it starts, is doubted: what was in force stays, until it says something again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kit.slices import emptied, made_in_slices, portions
from control.server.sources.inventory import Changed, Inventory
from control.server.sources.objects import AnyObject, Key
from control.server.sources.problem import UNREADABLE, Problem
from control.server.sources.snapshot import Snapshot
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
# A cut file, a disk that was not mounted, a checkout in the middle: nobody means to take so many
# out of a mesh at once, but for a namespace with all that is in it.
GONE_SHARE: Final = 0.9
GONE_MIN: Final = 50
HELD_S: Final = 600.0  # then they are believed to be gone
SLICE: Final = 32  # objects to compare, some 0.2 ms


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
    def __init__(
        self, inner: ObjectSource, file: StateFile, clock: Clock, gone_share: float = GONE_SHARE
    ) -> None:
        """`gone_share`: more than that share of all objects is held back when it goes at once."""
        self._inner = inner
        self._file = file
        self._clock = clock
        self._gone_share = gone_share
        self._latest: Snapshot | None = None
        self._news = asyncio.Event()
        self._owed: dict[Key, AnyObject | None] = {}  # said by the source, not in force
        self._owes_all = False
        self._last: Snapshot | None = None
        self._is_paying = False  # half of what the source said is in force
        self._held_s: float | None = None  # since when some of it is held back
        self._inventory = Inventory()  # in force
        self._given: Snapshot | None = None
        self._is_kept = False
        self._doubt = ""  # told
        self._current_at: datetime | None = None  # what is in force was true then
        self._unsaved: dict[Key, AnyObject | None] = {}
        self._is_saved = False  # some state, by this process
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
            if each.is_whole:
                self._owed, self._owes_all = {}, True
            self._owed.update(each.changed)
            self._latest = replace(each, changed={})
            self._news.set()

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        started_s = self._clock.monotonic_s()
        may_have_kept = True
        while True:
            self._news.clear()
            found, self._latest = self._latest, None
            if found is None and self._is_over():
                found = self._last
            if found is not None:
                self._last = found
                may_have_kept = False
                if (chosen := await self._chosen(found)) is not None:
                    self._given = replace(chosen, changed={})
                    yield chosen
            elif may_have_kept and self._gives_up(started_s):
                may_have_kept = False
                why = self._inner.trouble or f"not complete after {PATIENCE_S:.0f} s"
                if (kept := await self._kept(why)) is not None:
                    self._given = replace(kept, changed={})
                    yield kept
            if not self._news.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(
                        None if self._held_s is None and not may_have_kept else TICK_S
                    ):
                        await self._news.wait()

    def _is_over(self) -> bool:
        """True once what went has been held for so long that it is meant."""
        return self._held_s is not None and self._clock.monotonic_s() - self._held_s >= HELD_S

    def _gives_up(self, started_s: float) -> bool:
        passed_s = self._clock.monotonic_s() - started_s
        return passed_s >= (TROUBLED_S if self._inner.trouble else PATIENCE_S)

    async def _chosen(self, found: Snapshot) -> Snapshot | None:
        """News of it, if there are any; of what stays in force these are problems alone."""
        before = self._given
        if before is None and (why := found.doubt or await self._too_few()):
            await self._kept(why, GUARDED_MIN)
        if found.doubt and len(self._inventory) >= GUARDED_MIN:
            changed: Changed = {}
            doubt = found.doubt
            said = f"{doubt}; the last good state stays in force"
        else:
            total = len(self._inventory)
            held, changed = await made_in_slices(self._pay(), self._clock)
            doubt = f"more than {self._gone_share:.0%} of {total} objects went at once"
            said = (
                f"{len(held)} objects are gone, {doubt}; they stay in force for {HELD_S / 60:.0f}"
            )
            said += " minutes, or until --gone-share 1 says that they may go"
            doubt = doubt if held else ""
        self._tell_doubt(doubt)
        problems = found.problems
        if doubt:
            doubted = Problem(self.name, 0, "", UNREADABLE, said)
            problems = (doubted, *(each for each in problems if each != doubted))
        else:
            self._believe()
        if before is None:
            return self._snapshot(self._inventory.whole(), problems, found.ignored)
        if not changed and (problems, found.ignored) == (before.problems, before.ignored):
            return None
        return self._snapshot(changed, problems, found.ignored)

    def _tell_doubt(self, doubt: str) -> None:
        if doubt and doubt != self._doubt:
            event(log, logging.ERROR, "source.doubted", source=self.name, error=doubt)
            self._doubt = doubt

    async def _too_few(self) -> str:
        """At a start: the reason to look at the state that is kept, if it has so much more."""
        there = len(self._owed)
        before = await asyncio.to_thread(self._file.count)
        is_much = before >= GONE_MIN and there < before * (1 - self._gone_share)
        return f"{there} objects are there, {before} were" if is_much else ""

    def _pay(self) -> Generator[None, None, tuple[list[Key], Changed]]:
        """Put all that the source has said in force, in steps, but for what nearly was everything
        and went at once: its keys, and the news. Nothing is saved meanwhile: half of a change is no
        state."""
        owed, self._owed = self._owed, {}
        is_all, self._owes_all = self._owes_all, False
        self._is_paying = True
        if is_all:
            for keys in portions((yield from self._inventory.missing(owed))):
                owed.update(dict.fromkeys(keys))
                yield
        held = yield from self._held_back(owed)
        for key in held:
            del owed[key]
            yield
        if not self._owes_all:  # or it was said anew what there is
            self._owed = {**dict.fromkeys(held), **self._owed}
        changed: dict[Key, AnyObject | None] = {}
        for part in portions(owed.items(), SLICE):
            changed |= self._inventory.differing(dict(part))
            yield
        for some in portions(changed.items()):
            self._put(dict(some))
            yield
        self._is_paying = False
        yield from emptied(owed)
        return held, changed

    def _held_back(self, owed: Changed) -> Generator[None, None, list[Key]]:
        """The keys that are to stay, if nearly everything goes at once. Those that go with their
        namespace are meant to, as long as there is another."""
        gone: list[Key] = []
        come = 0
        for part in portions(owed.items(), SLICE):
            gone += (key for key, value in part if value is None and self._has(key))
            come += sum(value is not None and not self._has(key) for key, value in part)
            yield
        total = len(self._inventory)
        spaces: set[str] = set()
        for keys in portions(gone):
            spaces.update(key.name for key in keys if key.kind == "Namespace")
            yield
        if len(spaces) < self._inventory.counts()["Namespace"]:
            every, gone = gone, []
            for keys in portions(every):
                gone += (key for key in keys if key.namespace not in spaces)
                yield
        now_s = self._clock.monotonic_s()
        if len(gone) < GONE_MIN or len(gone) - come <= total * self._gone_share:
            self._held_s = None
        elif self._held_s is None:
            self._held_s = now_s
        is_held = self._held_s is not None and now_s - self._held_s < HELD_S
        return gone if is_held else []

    def _has(self, key: Key) -> bool:
        return self._inventory.get(key) is not None

    def _put(self, changed: Changed) -> None:
        self._inventory.replace(changed)
        self._unsaved.update(changed)

    def _snapshot(
        self, changed: Changed, problems: tuple[Problem, ...], ignored: Mapping[str, int]
    ) -> Snapshot:
        return Snapshot(self._inventory, changed, problems, ignored, is_whole=self._given is None)

    def _believe(self) -> None:
        if self._is_kept or self._doubt:
            event(log, logging.WARNING, "source.back", source=self.name)
        self._is_kept, self._doubt = False, ""
        self._current_at = self._clock.now()

    async def _kept(self, why: str, objects_min: int = 0) -> Snapshot | None:
        """The state on disk, with a problem that says so; None: there is none of that size."""
        state = await asyncio.to_thread(self._file.load)
        if state is None or len(state.objects) < objects_min:
            return None
        self._is_kept, self._current_at = True, state.current_at
        self._put({each.meta.key: each for each in state.objects})
        self._unsaved = {}
        moment = f"{state.current_at:%Y-%m-%d %H:%M:%S} UTC"
        age_s = round((self._clock.now() - state.current_at).total_seconds())
        event(
            log,
            logging.WARNING,
            "source.kept_state",
            source=self.name,
            of=moment,
            age_s=age_s,
            objects=len(state.objects),
            error=why,
        )
        message = f"cannot be read since the start; the last good state, of {moment}, is in force"
        problems = (Problem(self.name, 0, "", UNREADABLE, message),)
        return self._snapshot(self._inventory.whole(), problems, {})

    async def _keep(self) -> None:
        """Write down what is in force, if the source itself gave it, now and then."""
        while True:
            await asyncio.sleep(TICK_S)
            self._look()
            if not self._has_unsaved():
                continue
            started_s = self._clock.monotonic_s()
            if await self._save():
                self._touched_s = started_s
            took_s = self._clock.monotonic_s() - started_s
            await asyncio.sleep(max(SAVE_EVERY_S - TICK_S, took_s * SAVE_SHARE))

    async def _save(self) -> bool:
        """Append what changed, or write everything; False if nothing could be written."""
        changed, self._unsaved = self._unsaved, {}
        now = self._clock.now()
        if await asyncio.to_thread(self._file.add, changed, now):
            return True
        self._unsaved.clear()  # it is in the inventory
        everything = tuple(self._inventory)
        self._is_saved = True
        return await asyncio.to_thread(self._file.save_all, everything, now)

    def _look(self) -> None:
        """Note that what is in force is how things are, here and on disk."""
        if self._given is None or self._is_kept or self._doubt or self._inner.trouble:
            return
        self._current_at = self._clock.now()
        now_s = self._clock.monotonic_s()
        if self._is_saved and not self._unsaved and now_s - self._touched_s >= TOUCH_EVERY_S:
            self._touched_s = now_s
            self._file.touch(self._current_at)

    def _has_unsaved(self) -> bool:
        if self._given is None or self._is_kept or self._doubt or self._is_paying:
            return False
        return bool(self._unsaved) or not self._is_saved

    def _save_last(self) -> None:
        """At the end: what was in force is what the next start should find."""
        if self._has_unsaved():
            now = self._current_at or self._clock.now()
            if not self._file.add(self._unsaved, now):
                self._file.save_all(self._inventory, now)
