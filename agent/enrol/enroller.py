"""Enrolment as it runs: takes in events, and runs the tracks that carry out the plan.

A track asks the book for steps that are ready, takes them and records their outcome in the book.
The kernel has one (kernel_track.py), and each ztunnel has one (ztunnel_track.py). All of it runs in
one thread; the order of steps is decided in plan.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from agent import registry, zds
from agent.datapath.audit import Difference
from agent.datapath.cgroups import started_ticks
from agent.datapath.pods import CapturedPod
from agent.enrol import plan, ztunnel_cgroup
from agent.enrol.book import Book
from agent.enrol.containers import DeletedContainers
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import Datapath, Direct, KernelTrack
from agent.enrol.plan import PodState
from agent.enrol.repair import Compared, Repair
from agent.enrol.sweep import Sweep
from agent.enrol.ztunnel_track import ZtunnelTrack
from agent.registry import NamespaceGone, Registration, Registry
from control.kit.clock import Clock
from control.kit.errors import ConfigError, KernelError
from control.kit.log import event
from control.model.address import Address
from control.model.intent import Intent

log = logging.getLogger("enrol")


class NamespaceTaken(ConfigError):
    reason: ClassVar[str] = "netns_taken"


class PodMismatch(ConfigError):
    """A registration that contradicts the control plane about the pod of this uid."""

    reason: ClassVar[str] = "pod_mismatch"


class ContainerDeleted(ConfigError):
    """A registration that is late: its container was deleted before it came."""

    reason: ClassVar[str] = "container_deleted"


@dataclass(frozen=True, slots=True)
class Host:
    """The node, and the operator's choices for it."""

    node: str
    cgroup_root: Path
    drain_s: float
    linger_s: float = 0.0
    direct: bool = True  # False: nothing of this node leaves out the tunnel


class Enroller:
    def __init__(
        self, host: Host, datapath: Datapath, known: Registry, clock: Clock, direct: Direct
    ) -> None:
        self._host = host
        self._datapath = datapath
        self.facts = Facts(clock, Book(host.drain_s, host.linger_s), known)
        self._direct = direct
        self._kernel = KernelTrack(self.facts, datapath, direct)
        self._deleted_ids = DeletedContainers()
        self._sweep = Sweep(self.facts, datapath, host.cgroup_root, host.node)
        self._cgroups: dict[int, Path] = {}  # ztunnel → its cgroup
        self._repair = Repair(self.facts, datapath, lambda: set(self._cgroups.values()))

    # Start

    def adopt(self) -> None:
        """Take over what a past run left in force; no pod is released that has a namespace."""
        captured = {pod.uid: pod for pod in self._datapath.captured()}
        for registration in self.facts.known:
            self._book(registration)
        self.facts.vanished(*(each for each in self.facts.known if not registry.is_there(each)))
        self._find_lost(pod for uid, pod in captured.items() if self.facts.known.get(uid) is None)
        for uid, pod in captured.items():
            self.facts.book.adopted(uid, plan.Capture(pod.cookie, pod.addresses, direct=pod.direct))
            self._kernel.tell_direct(pod)
            if not self._host.direct:
                self.facts.book.allowed_direct(uid, False)
        for registration in self.facts.known:
            if registration.released_s and registration.uid not in captured:
                self.facts.book.released_before(registration.uid, registration.released_s)
            if registration.held_until_s:
                self.facts.book.held(registration.uid, registration.held_until_s)
        event(log, logging.INFO, "capture.adopted", pods=len(captured))
        self._kernel.take_steps()

    def _find_lost(self, orphans: Iterable[CapturedPod]) -> None:
        """Register captured pods whose registration is lost, wherever their namespaces are."""
        by_cookie = {pod.cookie: pod for pod in orphans}
        if not by_cookie:
            return
        for cookie, (path, inode) in registry.find(set(by_cookie)).items():
            pod = by_cookie[cookie]
            found = Registration(pod.uid, "", "", path, inode, cookie, addresses=pod.addresses)
            event(log, logging.WARNING, "registration.found_again", uid=pod.uid, netns=path)
            self.facts.known.learn(found)
            self._book(found)

    def _book(self, registration: Registration) -> None:
        intent = self.facts.intents.get(registration.uid)
        enrolled = None if intent is None else intent.enrolled
        self.facts.book.registered(
            registration.uid, registration.cookie, registration.addresses, enrolled
        )
        if intent is not None:
            self._allow(intent)
        self.facts.waiting_since_s.setdefault(registration.uid, self.facts.clock.monotonic_s())

    def _allow(self, intent: Intent) -> None:
        """Let in what needs no ztunnel: neighbours on this node, and the kubelet's probes."""
        self.facts.book.allowed_direct(intent.uid, intent.direct and self._host.direct)
        if not intent.enrolled:
            return  # while the pod drains, its probes still have to pass
        try:
            self._datapath.set_probes(intent.uid, frozenset(intent.probe_ports))
        except (KernelError, OSError) as exc:
            # As before, or none: under STRICT its probes fail, and nobody else comes in.
            event(log, logging.WARNING, "pod.probes_failed", uid=intent.uid, error=exc)

    # Events

    def register(self, registration: Registration) -> None:
        """Take in a verified registration; another namespace replaces the one before.

        NamespaceTaken, PodMismatch, ContainerDeleted or StateUnwritable: nothing has changed.
        """
        owner = self.facts.book.living_in(registration.cookie)
        if owner not in (None, registration.uid):
            raise NamespaceTaken(f"{registration.netns} is registered as {owner}")
        intent = self.facts.intents.get(registration.uid)
        if intent is not None and _contradict(registration, intent):
            raise PodMismatch(f"{intent.uid} is {intent.namespace}/{intent.name}")
        known = self.facts.known.get(registration.uid)
        if known is not None and known.cookie == registration.cookie:
            registration = replace(
                registration, released_s=known.released_s, held_until_s=known.held_until_s
            )
        container_id = registration.container_id
        if container_id in self._deleted_ids and self._is_other(known, container_id):
            raise ContainerDeleted(f"container {container_id} was deleted, another one is there")
        if known is None or known.cookie != registration.cookie:
            event(
                log,
                logging.INFO,
                "pod.registered",
                uid=registration.uid,
                pod=f"{registration.namespace}/{registration.name}",
                netns=registration.netns,
            )
        self.facts.known.put(registration if intent is None else _told(registration, intent))
        self._book(self.facts.known.get(registration.uid) or registration)
        self._deleted_ids.discard(container_id)
        self.facts.news()

    def deleted(self, uid: str, container_id: str = "") -> bool:
        """Take the pod out of the mesh; False: it was about another container of that uid.

        Runtimes delete a container that was replaced minutes after its successor was registered.
        """
        self._deleted_ids.add(container_id)
        if self._is_other(self.facts.known.get(uid), container_id):
            event(log, logging.INFO, "delete.other_container", uid=uid, container=container_id)
            return False
        self.facts.book.gone(uid)
        self.facts.news()
        return True

    def was_deleted(self, container_id: str) -> bool:
        """True for a container that was deleted lately: whoever still sees it looks at the past."""
        return container_id in self._deleted_ids

    @staticmethod
    def _is_other(known: Registration | None, container_id: str) -> bool:
        """True when that pod's namespace is there and was made for another container."""
        return known is not None and known.container_id != container_id and registry.is_there(known)

    def intents_changed(self, fresh: dict[str, Intent], removed: Collection[str]) -> None:
        """Take in intents. A withdrawn one leaves its pod as it is until its namespace goes."""
        self.facts.intents.update(fresh)
        for uid in removed:
            self.facts.intents.pop(uid, None)
            pod = self.facts.book.pods().get(uid)
            if pod is not None and pod.enrolled:
                self.facts.book.wanted(uid, None, None)
        for uid, intent in fresh.items():
            known = self.facts.known.get(uid)
            if known is None or uid not in self.facts.book.pods():
                continue
            if _contradict(known, intent):
                event(
                    log,
                    logging.ERROR,
                    "pod.mismatch",
                    uid=uid,
                    registered=f"{known.namespace}/{known.name}",
                    wanted=f"{intent.namespace}/{intent.name}",
                )
                continue
            self.facts.known.learn(_told(known, intent))
            was = self.facts.book.pods()[uid].enrolled
            addresses = _placed_by(intent, known) or None
            now_s = self.facts.clock.monotonic_s()
            self.facts.book.wanted(uid, intent.enrolled, addresses, now_s)
            self._allow(intent)
            if intent.enrolled and not was:
                self.facts.waiting_since_s[uid] = now_s
        self.facts.news()

    def reporting(self, captured: frozenset[str]) -> None:
        self.facts.book.reporting(captured)

    def reported(self, captured: frozenset[str]) -> None:
        self.facts.book.reported(captured, self.facts.clock.monotonic_s())
        self.facts.news()

    async def settled(self, uid: str) -> PodState:
        """Wait until the pod may start: it is captured, or known not to be enrolled."""
        with self.facts.startup(uid):
            while True:
                found = self.facts.book.state(uid)
                if found is None:
                    raise NamespaceGone(f"{uid} was deleted in the meantime")
                if found[0] in (PodState.CAPTURED, PodState.NOT_ENROLLED):
                    return found[0]
                await self.facts.watches.next(uid).wait()

    async def forgotten(self, uid: str) -> None:
        """Wait until nothing is left of the pod."""
        while uid in self.facts.book.pods():
            await self.facts.watches.next(uid).wait()

    # Running

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kernel.run(), name="enrol.kernel")
            tasks.create_task(self._kernel.shortcuts.run(), name="enrol.shortcuts")
            tasks.create_task(self._sweep.run(), name="enrol.sweep")
            tasks.create_task(self._repair.run(), name="enrol.repair")

    # Ztunnels

    async def serve_ztunnel(self, ztunnel: zds.Ztunnel) -> None:
        """Serve a ztunnel for as long as it is connected; captures outlive it."""
        folder = ztunnel_cgroup.settle(self._host.cgroup_root, self._host.node, ztunnel.pid)
        self._datapath.exempt(folder)
        self._sweep.exempted(folder)
        self._cgroups[ztunnel.number] = folder
        self.facts.ztunnels[ztunnel.number] = ztunnel
        started, first = started_ticks(ztunnel.pid), self._sweep.uses.latest()
        self.facts.book.ztunnel_joined(ztunnel.number, started, first)
        ztunnel.on_leaving = lambda: self._ztunnel_leaving(ztunnel)
        if ztunnel.is_leaving:
            self.facts.book.ztunnel_leaving(ztunnel.number)
        self._tell_newest()
        self.facts.news()
        try:
            await ZtunnelTrack(self.facts, self._kernel, ztunnel, first).run()
        finally:
            self._ztunnel_left(ztunnel.number)

    def _ztunnel_leaving(self, ztunnel: zds.Ztunnel) -> None:
        event(log, logging.INFO, "ztunnel.leaving", pid=ztunnel.pid)
        self.facts.book.ztunnel_leaving(ztunnel.number)
        self._tell_newest()
        self.facts.news()

    def _ztunnel_left(self, number: int) -> None:
        del self.facts.ztunnels[number]
        del self._cgroups[number]
        self.facts.book.ztunnel_left(number)
        self._tell_newest()
        for key in [key for key in self.facts.listeners if key[1] == number]:
            self.facts.listeners.pop(key).close()
            self._kernel.drop_prepared(key[0])
        if not self.facts.ztunnels:
            captured = len(self.facts.book.report())
            event(log, logging.ERROR, "ztunnel.none_left", captured_pods_fail_closed=captured)
        self.facts.news()

    def _tell_newest(self) -> None:
        newest = self.facts.ztunnels.get(self.facts.book.node.newest or 0)
        self._direct.newest(None if newest is None else newest.pid)

    async def compare(self) -> list[Difference]:
        """Compare belief and kernel now, and repair what differs."""
        return await self._repair.compare()

    @property
    def compared(self) -> Compared:
        return self._repair.compared

    def uncaptured_connections(self, uid: str) -> int | None:
        """Number of the pod's live connections from before its capture; None: unknown."""
        return self._kernel.earlier.left(uid)


def _contradict(registration: Registration, intent: Intent) -> bool:
    """True when both have a name and they differ; a registration found again has none."""
    named = (registration.namespace, registration.name)
    return all(named) and named != (intent.namespace, intent.name)


def _told(registration: Registration, intent: Intent) -> Registration:
    """The registration, completed from the pod's intent."""
    return replace(
        registration,
        namespace=intent.namespace,
        name=intent.name,
        service_account=intent.service_account,
        addresses=_placed_by(intent, registration) or registration.addresses,
    )


def _placed_by(intent: Intent, registration: Registration) -> tuple[Address, ...]:
    """The addresses that the control plane gives the pod; none where the runtime's word counts."""
    return () if registration.is_placed else registry.one_of_each_family(intent.addresses)
