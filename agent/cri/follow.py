"""Follows the container runtime: registers pods that run already, and ends what is over.

The safety net under the CNI plugin, and the only way for pods that ran before it was there. It goes
the plugin's way: a registration, by the sandbox's id, and its end, by the same id. The list is what
counts, at the start, every 30 s, and after events, which may be minutes old.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent import registry
from agent.cri import decide, processes
from agent.cri.client import SOCKETS, NoEvents, Runtime, RuntimeAway, connected
from agent.cri.decide import Registered, Sightings
from agent.cri.sandboxes import Sandbox, SandboxNetwork, current
from agent.enrol.enroller import Enroller
from agent.registry import NamespaceRefused, Registration
from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event

log = logging.getLogger("cri")

LIST_EVERY_S = 30.0
LIST_SPACING_S = 0.5  # events come in bursts, of the last five minutes at first
AWAY_FIRST_S, AWAY_MAX_S = 0.5, 10.0


@dataclass(slots=True)
class RuntimeLink:
    """State of the connection, for status and metrics."""

    socket: str = ""
    name: str = ""
    error: str = "not asked yet"
    sandboxes: int = 0  # ready ones
    registered: int = 0  # pods that were found running, since our start
    released: int = 0  # registrations that were found to be over

    @property
    def connected(self) -> bool:
        return not self.error


class RuntimeFollower:
    def __init__(
        self,
        enroller: Enroller,
        is_synced: Callable[[], bool],
        clock: Clock,
        candidates: Sequence[Path] = SOCKETS,
        proc: Path = processes.PROC,
    ) -> None:
        """`is_synced`: the control plane has sent all intents, so that a missing one means
        something."""
        self._enroller = enroller
        self._is_synced = is_synced
        self._clock = clock
        self._candidates = candidates
        self._proc = proc
        self._seen = Sightings()
        self._host_network: set[str] = set()  # ids
        self._failures: dict[str, str] = {}  # sandbox or uid → pod, and why
        self._kept: set[str] = set()  # ids that are over, but somebody lives there
        self._hint = asyncio.Event()
        self._looks = 0
        self.link = RuntimeLink()

    def status(self) -> dict[str, Any]:
        return {
            **asdict(self.link),
            "connected": self.link.connected,
            "not_registered": dict(self._failures),
        }

    def look_soon(self) -> None:
        """Ask the runtime again at once: something has happened that it may know more about."""
        self._hint.set()

    async def run(self) -> None:
        backoff = Backoff(AWAY_FIRST_S, AWAY_MAX_S)
        while True:
            looks = self._looks
            try:
                async with connected(self._candidates) as runtime:
                    self._found(runtime)
                    await self._follow(runtime)
            except* RuntimeAway as group:
                self._lost(group.exceptions[0])
            if self._looks > looks:
                backoff.reset()
            _raise_if_cancelled()
            await self.look_at_processes()
            await asyncio.sleep(backoff.next_s())

    def _found(self, runtime: Runtime) -> None:
        self.link.socket, self.link.name, self.link.error = str(runtime.socket), runtime.name, ""
        event(log, logging.INFO, "cri.connected", socket=runtime.socket, runtime=runtime.name)

    def _lost(self, error: BaseException) -> None:
        if self.link.error != str(error):
            self.link.error = str(error)
            event(log, logging.WARNING, "cri.away", error=error)

    async def _follow(self, runtime: Runtime) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(runtime), name="cri.events")
            while True:
                self._hint.clear()
                await self.look(runtime)
                self._looks += 1
                await asyncio.sleep(LIST_SPACING_S)
                try:
                    async with asyncio.timeout(LIST_EVERY_S - LIST_SPACING_S):
                        await self._hint.wait()
                except TimeoutError:
                    continue

    async def _hear(self, runtime: Runtime) -> None:
        """Events until cancelled. A stream that ends is opened again: the list tells if the runtime
        is away."""
        backoff = Backoff(AWAY_FIRST_S, LIST_EVERY_S)
        while True:
            opened_s = self._clock.monotonic_s()
            try:
                async for _ in runtime.events():
                    self.look_soon()
            except NoEvents as exc:
                event(log, logging.INFO, "cri.no_events", error=exc, list_every_s=LIST_EVERY_S)
                return
            except RuntimeAway as exc:
                event(log, logging.DEBUG, "cri.events_ended", error=exc)
            self.look_soon()
            if self._clock.monotonic_s() - opened_s > LIST_EVERY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    # One look

    async def look(self, runtime: Runtime) -> None:
        """Ask for all sandboxes, and bring the registrations up to date with them."""
        listed = await runtime.sandboxes()
        ready = current(listed)
        self.link.sandboxes = len(ready)
        ids = {each.id for each in ready.values()}
        self._host_network &= ids
        registered = {each.uid: each for each in self._registered()}
        self._failures = {key: why for key, why in self._failures.items() if key in ids}
        for sandbox in decide.to_register(ready, registered, self._host_network):
            await self._take_in(runtime, sandbox)
        over = decide.over(listed, self._registered(), self._seen, self._clock.monotonic_s())
        completed = await self._completed(runtime)
        if over or completed:
            await self._end(over, completed)

    def _registered(self) -> Iterator[Registered]:
        facts = self._enroller.facts
        is_synced = self._is_synced()
        for each in facts.known:
            pod = facts.book.pods().get(each.uid)
            is_left = is_synced and each.uid not in facts.intents
            yield Registered(
                each.uid,
                each.container_id,
                has_namespace=pod is not None and pod.netns is not None,
                is_left_behind=is_left and pod is not None and pod.capture is not None,
            )

    async def _take_in(self, runtime: Runtime, sandbox: Sandbox) -> None:
        """Register a sandbox that runs. Its faults are its own: the others go on."""
        if self._enroller.was_deleted(sandbox.id):
            return
        place = await runtime.place(sandbox.id)
        if place is None or not place.sandbox.is_ready:
            return
        if place.is_host_network:
            self._host_network.add(sandbox.id)
            return
        try:
            self._enroller.register(inspected(place))
        except (MeshError, OSError) as exc:
            self._failed(sandbox.id, sandbox.namespace, sandbox.name, exc)
            return
        self._failures.pop(sandbox.id, None)
        self.link.registered += 1

    async def _completed(self, runtime: Runtime) -> list[Registered]:
        left = [each for each in self._registered() if each.is_left_behind]
        return decide.completed(left, *await runtime.living()) if left else []

    async def _end(self, over: Iterable[Registered], completed: Iterable[Registered]) -> None:
        """Release registrations that are over, unless a process lives in the namespace: then its
        traffic goes on, whatever the runtime says. In that of a completed one only the process of
        its sandbox does, which is not over."""
        ended = {each.container_id for each in over}
        finished = {each.container_id for each in completed} - ended
        ids = finished | ended
        self._kept &= ids
        known = self._enroller.facts.known
        inodes = {each.inode for each in known if each.container_id in ids}
        lived_in = await asyncio.to_thread(processes.inhabited, inodes, self._proc)
        for registration in known:
            container_id = registration.container_id
            if container_id not in ids:
                continue
            if registration.inode in lived_in and container_id not in finished:
                if container_id not in self._kept:
                    self._kept.add(container_id)
                    event(log, logging.WARNING, "cri.still_lived_in", uid=registration.uid)
                continue
            event(log, logging.INFO, "cri.over", uid=registration.uid, container=container_id)
            self.link.released += self._enroller.deleted(registration.uid, container_id)

    # Without a runtime

    def _expected(self) -> set[str]:
        facts = self._enroller.facts
        return {
            uid
            for uid, intent in facts.intents.items()
            if intent.enrolled and facts.known.get(uid) is None
        }

    async def look_at_processes(self) -> None:
        """Register pods by their processes, those that the control plane expects here."""
        expected = self._expected()
        self._failures = {key: why for key, why in self._failures.items() if key in expected}
        if not expected:
            return
        facts = self._enroller.facts
        found = await asyncio.to_thread(processes.pods, self._proc)
        for uid in sorted(self._expected() & found.keys()):
            intent, path = facts.intents[uid], found[uid]
            try:
                named = registry.inspected(uid, intent.namespace, intent.name, path)
                self._enroller.register(named)
            except (MeshError, OSError) as exc:
                self._failed(uid, intent.namespace, intent.name, exc)
                continue
            self._failures.pop(uid, None)
            self.link.registered += 1

    def _failed(self, key: str, namespace: str, name: str, error: MeshError | OSError) -> None:
        """Remember why it could not be registered, and log it once."""
        pod = f"{namespace}/{name}"
        if self._failures.get(key) != f"{pod}: {error}":
            self._failures[key] = f"{pod}: {error}"
            event(log, logging.WARNING, "cri.not_registered", pod=pod, error=error)


def _raise_if_cancelled() -> None:
    """End if we were cancelled: a group that fails at that moment raises its failure alone."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def inspected(place: SandboxNetwork) -> Registration:
    """The registration of a sandbox, by the first of its paths that can be opened here."""
    sandbox = place.sandbox
    refused: MeshError | OSError = NamespaceRefused("the runtime names no network namespace")
    for path in place.paths:
        try:
            return registry.inspected(
                sandbox.uid,
                sandbox.namespace,
                sandbox.name,
                path,
                container_id=sandbox.id,
                addresses=registry.one_of_each_family(place.addresses),
            )
        except (MeshError, OSError) as exc:
            refused = exc
    raise refused
