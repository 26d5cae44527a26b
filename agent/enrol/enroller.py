"""Carries out the plan: takes in what happens, and runs a lane for each ztunnel; decides no order.

Every lane (the kernel's is kernel_lane.py) asks the book for steps that are ready, takes them and
tells the book what came of it. All of it runs in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from agent import registry, zds
from agent.datapath import cgroups
from agent.datapath.pods import CapturedPod
from agent.enrol import plan, tunnel_cgroup
from agent.enrol.book import Book
from agent.enrol.facts import Facts
from agent.enrol.kernel_lane import Datapath, Direct, KernelLane, ListenersMissing
from agent.enrol.plan import State
from agent.registry import NamespaceGone, Registration, Registry
from control.kit.clock import Clock
from control.kit.errors import ConfigError, KernelError
from control.kit.log import event
from control.model.intent import Intent

log = logging.getLogger("enrol")

SWEEP_S = 2.0  # how soon a pod whose namespace vanished without a word is released
_SWEEP_BATCH = 32  # pods looked at in one turn: some 2 ms for which nobody else is served
_LISTENERS = 3  # outbound, plaintext, HBONE: the order of C3


class NamespaceTaken(ConfigError):
    reason: ClassVar[str] = "netns_taken"


class PodMismatch(ConfigError):
    """The caller and the control plane disagree about who has this uid."""

    reason: ClassVar[str] = "pod_mismatch"


@dataclass(frozen=True, slots=True)
class Host:
    """Where this node lives."""

    node: str
    cgroup_root: Path
    drain_s: float
    direct: bool = True  # False: this node keeps everything in the tunnel


class Enroller:
    def __init__(
        self, host: Host, datapath: Datapath, known: Registry, clock: Clock, direct: Direct
    ) -> None:
        self._host = host
        self._datapath = datapath
        self._exempted: set[Path] = set()
        self.facts = Facts(clock, Book(host.drain_s), known)
        self._direct = direct
        self._kernel = KernelLane(self.facts, datapath, direct)

    # Start

    def adopt(self) -> None:
        """Find what a past run left in force. Nothing is released that still has a namespace."""
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
        for folder in tunnel_cgroup.leftovers(self._host.cgroup_root, self._host.node):
            self._exempted.add(folder)
        event(log, logging.INFO, "capture.adopted", pods=len(captured))
        self._kernel.take_steps()

    def _find_lost(self, orphans: Iterable[CapturedPod]) -> None:
        """Captured, but its registration is gone: take it up under its uid, wherever it lives."""
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
            self._allow_direct(intent)
        self.facts.waiting_since_s.setdefault(registration.uid, self.facts.clock.monotonic_s())

    def _allow_direct(self, intent: Intent) -> None:
        self.facts.book.allowed_direct(intent.uid, intent.direct and self._host.direct)

    # What comes in

    def register(self, registration: Registration) -> None:
        """A pod's namespace, verified. The same one again is no news; another one replaces it."""
        owner = self.facts.book.living_in(registration.cookie)
        if owner not in (None, registration.uid):
            raise NamespaceTaken(f"{registration.netns} is registered as {owner}")
        intent = self.facts.intents.get(registration.uid)
        if intent is not None and _contradict(registration, intent):
            raise PodMismatch(f"{intent.uid} is {intent.namespace}/{intent.name}")
        known = self.facts.known.get(registration.uid)
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
        self.facts.news()

    def deleted(self, uid: str) -> None:
        self.facts.book.gone(uid)
        self.facts.news()

    def intents_changed(self, fresh: dict[str, Intent], removed: Collection[str]) -> None:
        """An intent that is withdrawn leaves its pod as it is, until the namespace goes."""
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
            addresses = registry.one_of_each_family(intent.addresses)
            self.facts.book.wanted(uid, intent.enrolled, addresses or None)
            self._allow_direct(intent)
            if intent.enrolled and not was:
                self.facts.waiting_since_s[uid] = self.facts.clock.monotonic_s()
        self.facts.news()

    def reporting(self, captured: Collection[str]) -> None:
        self.facts.book.reporting(captured)

    def reported(self, captured: Collection[str]) -> None:
        self.facts.book.reported(captured, self.facts.clock.monotonic_s())
        self.facts.news()

    async def settled(self, uid: str) -> State:
        """Wait until the pod may start: captured, or known to stay outside."""
        while True:
            found = self.facts.book.state(uid)
            if found is None:
                raise NamespaceGone(f"{uid} was deleted meanwhile")
            if found[0] in (State.CAPTURED, State.NOT_ENROLLED):
                return found[0]
            await self.facts.watches.next(uid).wait()

    async def forgotten(self, uid: str) -> None:
        while uid in self.facts.book.pods():
            await self.facts.watches.next(uid).wait()

    # The kernel's lane

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kernel.run(), name="enrol.kernel")
            tasks.create_task(self._run_sweep(), name="enrol.sweep")

    # A ztunnel's lane

    async def serve_tunnel(self, tunnel: zds.Tunnel) -> None:
        """Runs as long as the ztunnel is connected; leaving it ends nothing that is captured."""
        folder = tunnel_cgroup.settle(self._host.cgroup_root, self._host.node, tunnel.pid)
        self._datapath.exempt(folder)
        self._exempted.add(folder)
        self.facts.tunnels[tunnel.number] = tunnel
        self.facts.book.tunnel_joined(tunnel.number)
        self._tell_newest()
        self.facts.news()
        try:
            await self._talk(tunnel)
        finally:
            del self.facts.tunnels[tunnel.number]
            self.facts.book.tunnel_left(tunnel.number)
            self._tell_newest()
            for key in [key for key in self.facts.listeners if key[1] == tunnel.number]:
                self.facts.listeners.pop(key).close()
            if not self.facts.tunnels:
                captured = len(self.facts.book.report())
                event(log, logging.ERROR, "ztunnel.none_left", captured_pods_fail_closed=captured)
            self.facts.news()

    def _tell_newest(self) -> None:
        newest = self.facts.tunnels.get(self.facts.book.node.newest or 0)
        self._direct.newest(None if newest is None else newest.pid)

    async def _talk(self, tunnel: zds.Tunnel) -> None:
        snapshot_sent = False
        while True:
            news = self.facts.pulse.next()
            step = self.facts.book.tunnel_step(tunnel.number, self.facts.clock.monotonic_s())
            match step:
                case plan.AddToTunnel():
                    await self._add(tunnel, step)
                    # At once: a ztunnel that saw the snapshot's end has its pods' connections.
                    self._kernel.take_steps()
                case plan.DeleteFromTunnel():
                    await self._delete(tunnel, step)
                case None if not snapshot_sent and tunnel.number == self.facts.book.node.newest:
                    # Its end makes a ztunnel drop what it was not sent, and an older one may
                    # still serve what only the newest is sent now.
                    await tunnel.snapshot_sent()
                    snapshot_sent = True
                case None:
                    await news.wait()
                    continue
            self.facts.news()

    async def _add(self, tunnel: zds.Tunnel, step: plan.AddToTunnel) -> None:
        registration = self.facts.known.get(step.uid)
        if registration is None:
            raise AssertionError(f"a step for somebody unknown: {step}")
        info = zds.PodInfo(
            step.uid,
            registration.name,
            registration.namespace,
            registration.service_account or "default",
        )
        try:
            with registry.opened_again(registration) as netns_fd:
                self.facts.book.adding(step)
                listeners = await tunnel.add(info, netns_fd)
        except NamespaceGone:
            self.facts.vanished(registration)
            return
        except (zds.TunnelRefused, KernelError) as exc:
            if self.facts.book.pods()[step.uid].netns == step.netns:  # else nobody asks again
                self.facts.failed(step.uid, exc)
            return
        if tunnel.is_ours and len(listeners) != _LISTENERS:
            got = len(listeners)
            listeners.close()
            self.facts.failed(
                step.uid, ListenersMissing(f"{got} descriptors with the acknowledgement")
            )
            return
        if len(listeners):
            old = self.facts.listeners.pop((step.uid, step.tunnel), None)
            if old is not None:
                old.close()
            self.facts.listeners[step.uid, step.tunnel] = listeners
        self.facts.book.added(step)

    async def _delete(self, tunnel: zds.Tunnel, step: plan.DeleteFromTunnel) -> None:
        kept = self.facts.listeners.pop((step.uid, step.tunnel), None)
        if kept is not None:
            kept.close()
        try:
            await tunnel.delete(step.uid)
        except zds.TunnelRefused as exc:
            # It says it does not have the pod: what we want. Its word is logged, not argued with.
            event(log, logging.WARNING, "ztunnel.delete_refused", uid=step.uid, error=exc)
        self.facts.book.removed(step)

    def uncaptured_connections(self, uid: str) -> int | None:
        return self._kernel.uncaptured_connections(uid)

    # What vanished without a word

    async def _run_sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sweep()

    async def sweep(self) -> None:
        missing = []
        for number, registration in enumerate(self.facts.known, start=1):
            pod = self.facts.book.pods().get(registration.uid)
            if pod is not None and pod.netns is not None and not registry.is_there(registration):
                missing.append(registration)
            if number % _SWEEP_BATCH == 0:
                await asyncio.sleep(0)
        # Some may have been registered anew while we looked at the others.
        self.facts.vanished(*(e for e in missing if self.facts.known.get(e.uid) == e))
        self.facts.known.save()
        self._sweep_cgroups()
        self.facts.news()

    def _sweep_cgroups(self) -> None:
        """A ztunnel stays exempt as long as any process of it lives: it may still be draining."""
        live = {tunnel.pid for tunnel in self.facts.tunnels.values()}
        for folder in sorted(self._exempted):
            if not tunnel_cgroup.is_over(folder) or live & _members(folder):
                continue
            try:
                self._datapath.unexempt(folder)
                tunnel_cgroup.remove(self._host.cgroup_root, self._host.node, folder)
            except (KernelError, OSError) as exc:
                event(log, logging.WARNING, "cgroup.not_unexempted", cgroup=folder, error=exc)
                continue  # nobody lives in it; the next sweep tries again
            self._exempted.discard(folder)


def _members(folder: Path) -> set[int]:
    try:
        return cgroups.members(folder)
    except OSError:
        return set()


def _contradict(registration: Registration, intent: Intent) -> bool:
    """A registration that was lost and found again knows no name."""
    named = (registration.namespace, registration.name)
    return all(named) and named != (intent.namespace, intent.name)


def _told(registration: Registration, intent: Intent) -> Registration:
    """The registration with what the control plane says of the pod."""
    addresses = registry.one_of_each_family(intent.addresses)
    return replace(
        registration,
        namespace=intent.namespace,
        name=intent.name,
        service_account=intent.service_account,
        addresses=addresses or registration.addresses,
    )
