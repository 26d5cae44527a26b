"""Carries out the plan: one lane for the kernel, one for each ztunnel; decides no order itself.

Every lane asks the book for steps that are ready, takes them and tells the book what came of it.
All of it runs in one thread, and a kernel step never awaits, so nobody sees a half-taken step.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Protocol

from agent import registry, zds
from agent.datapath import cgroups, netns, sockets
from agent.datapath.pods import CapturedPod, PodCapture
from agent.enrol import plan, tunnel_cgroup
from agent.enrol.book import Book
from agent.enrol.plan import State
from agent.intents import Intent
from agent.registry import NamespaceGone, Registration, Registry
from control.kit.clock import Clock
from control.kit.errors import ConfigError, KernelError, MeshError
from control.kit.log import event
from control.model.address import format_address, parse_address

log = logging.getLogger("enrol")

SWEEP_S = 5.0  # how soon a pod whose namespace vanished without a word is released
_ESTABLISHED = 1  # TCP_ESTABLISHED
_LISTENERS = 3  # outbound, plaintext, HBONE: the order of C3


class ListenersMissing(MeshError):
    reason: ClassVar[str] = "listeners_missing"


class NamespaceTaken(ConfigError):
    reason: ClassVar[str] = "netns_taken"


class Datapath(Protocol):
    """What is used of the kernel half."""

    def capture(self, pod: PodCapture) -> CapturedPod: ...
    def release(self, uid: str) -> bool: ...
    def captured(self) -> list[CapturedPod]: ...
    def exempt(self, cgroup: Path) -> None: ...
    def unexempt(self, cgroup: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Host:
    """Where this node lives."""

    node: str
    cgroup_root: Path
    drain_s: float


@dataclass(slots=True)
class Stats:
    """What /metrics adds to the status."""

    enrolments: int = 0
    enrolment_s_sum: float = 0.0
    enrolment_s_last: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)


class Pulse:
    """Wakes everybody who waits for news; who looks first and waits then misses nothing."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def beat(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        return self._event


class Enroller:
    def __init__(self, host: Host, datapath: Datapath, known: Registry, clock: Clock) -> None:
        self._host = host
        self._datapath = datapath
        self._known = known
        self._clock = clock
        self._listeners: dict[tuple[str, int], zds.Descriptors] = {}
        self._exempted: set[Path] = set()
        self._escaped: dict[str, frozenset[int]] = {}  # uid → inodes of older connections
        self._waiting_since_s: dict[str, float] = {}  # uid → when its enrolment could begin
        self.book = Book(host.drain_s)
        self.intents: dict[str, Intent] = {}
        self.tunnels: dict[int, zds.Tunnel] = {}
        self.stats = Stats()
        self.pulse = Pulse()

    # Start

    def adopt(self) -> None:
        """Find what a past run left in force. Nothing is released that still has a namespace."""
        captured = {pod.uid: pod for pod in self._datapath.captured()}
        for registration in self._known:
            if registry.is_there(registration):
                self._book(registration)
            elif registration.uid not in captured:
                self._known.remove(registration.uid)
        self._find_lost(pod for uid, pod in captured.items() if self._known.get(uid) is None)
        for uid, pod in captured.items():
            addresses = tuple(parse_address(str(each)) for each in pod.addresses)
            self.book.adopted(uid, plan.Capture(pod.cookie, addresses))
        for folder in tunnel_cgroup.leftovers(self._host.cgroup_root, self._host.node):
            self._exempted.add(folder)
        event(log, logging.INFO, "capture.adopted", pods=len(captured))
        self._kernel_lane()

    def _find_lost(self, orphans: Iterable[CapturedPod]) -> None:
        """Captured, but its registration is gone: take it up under its uid, wherever it lives."""
        by_cookie = {pod.cookie: pod for pod in orphans}
        if not by_cookie:
            return
        for cookie, (path, inode) in registry.find(set(by_cookie)).items():
            pod = by_cookie[cookie]
            addresses = tuple(str(each) for each in pod.addresses)
            found = Registration(pod.uid, "", "", path, inode, cookie, addresses=addresses)
            event(log, logging.WARNING, "registration.found_again", uid=pod.uid, netns=path)
            self._known.put(found)
            self._book(found)

    def _book(self, registration: Registration) -> None:
        intent = self.intents.get(registration.uid)
        addresses = tuple(parse_address(each) for each in registration.addresses)
        enrolled = None if intent is None else intent.enrolled
        self.book.registered(registration.uid, registration.cookie, addresses, enrolled)
        self._waiting_since_s.setdefault(registration.uid, self._clock.monotonic_s())

    # What comes in

    def register(self, registration: Registration) -> None:
        """A pod's namespace, verified. The same one again is no news; another one replaces it."""
        for other in self._known:
            pod = self.book.pods().get(other.uid)
            is_live = pod is not None and pod.netns == registration.cookie
            if is_live and other.uid != registration.uid:
                raise NamespaceTaken(f"{registration.netns} is registered as {other.uid}")
        known = self._known.get(registration.uid)
        if known is None or known.cookie != registration.cookie:
            event(
                log,
                logging.INFO,
                "pod.registered",
                uid=registration.uid,
                pod=f"{registration.namespace}/{registration.name}",
                netns=registration.netns,
            )
        intent = self.intents.get(registration.uid)
        self._known.put(registration if intent is None else _told(registration, intent))
        self._book(self._known.get(registration.uid) or registration)
        self._news()

    def deleted(self, uid: str) -> None:
        self.book.gone(uid)
        self._news()

    def intents_changed(self, fresh: dict[str, Intent], removed: Collection[str]) -> None:
        """An intent that is withdrawn leaves its pod as it is, until the namespace goes."""
        self.intents.update(fresh)
        for uid in removed:
            self.intents.pop(uid, None)
            pod = self.book.pods().get(uid)
            if pod is not None and pod.enrolled:
                self.book.wanted(uid, None, None)
        for uid, intent in fresh.items():
            known = self._known.get(uid)
            if known is None or uid not in self.book.pods():
                continue
            self._known.put(_told(known, intent))
            was = self.book.pods()[uid].enrolled
            addresses = registry.one_of_each_family(intent.addresses)
            self.book.wanted(uid, intent.enrolled, addresses or None)
            if intent.enrolled and not was:
                self._waiting_since_s[uid] = self._clock.monotonic_s()
        self._news()

    def reporting(self, captured: Collection[str]) -> None:
        self.book.reporting(captured)

    def reported(self, captured: Collection[str]) -> None:
        self.book.reported(captured, self._clock.monotonic_s())
        self._news()

    def _news(self) -> None:
        for uid, state, reason in self.book.observe(self._clock.now()):
            event(log, logging.INFO, "pod.state", uid=uid, state=state.value, reason=reason)
        self.pulse.beat()

    async def settled(self, uid: str) -> State:
        """Wait until the pod may start: captured, or known to stay outside."""
        while True:
            news = self.pulse.next()
            found = self.book.state(uid)
            if found is None:
                raise NamespaceGone(f"{uid} was deleted meanwhile")
            if found[0] in (State.CAPTURED, State.NOT_ENROLLED):
                return found[0]
            await news.wait()

    async def forgotten(self, uid: str) -> None:
        while uid in self.book.pods():
            await self.pulse.next().wait()

    # The kernel's lane

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_kernel_lane(), name="enrol.kernel")
            tasks.create_task(self._run_sweep(), name="enrol.sweep")

    async def _run_kernel_lane(self) -> None:
        while True:
            news = self.pulse.next()
            if self._kernel_lane():
                continue
            now_s = self._clock.monotonic_s()
            deadline_s = self.book.next_deadline_s(now_s)
            wait_s = None if deadline_s is None else max(deadline_s - now_s, 0.01)
            try:
                async with asyncio.timeout(wait_s):
                    await news.wait()
            except TimeoutError:
                self.pulse.beat()  # a retry may be a ztunnel's to make

    def _kernel_lane(self) -> bool:
        """Take every kernel step that is ready; False: there was none."""
        taken = self.book.kernel_steps(self._clock.monotonic_s())
        for step in taken:
            match step:
                case plan.CapturePod():
                    self._try_capture(step)
                case plan.Release(uid):
                    self._release(uid)
                case plan.Forget(uid):
                    self._known.remove(uid)
                    self._waiting_since_s.pop(uid, None)
                    self._escaped.pop(uid, None)
                    self.book.forgotten(uid)
                    event(log, logging.INFO, "pod.forgotten", uid=uid)
        if taken:
            self._news()
        return bool(taken)

    def _release(self, uid: str) -> None:
        try:
            self._datapath.release(uid)
        except (KernelError, OSError) as exc:
            # Still captured means still refused or tunnelled: closed, and tried again.
            self._failed(uid, exc)
            return
        self._escaped.pop(uid, None)
        self.book.released(uid)
        event(log, logging.INFO, "pod.released", uid=uid)

    def _try_capture(self, step: plan.CapturePod) -> None:
        registration = self._known.get(step.uid)
        tunnel = self.tunnels.get(step.tunnel)
        if registration is None or tunnel is None:
            raise AssertionError(f"a step for somebody unknown: {step}")
        try:
            with registry.opened_again(registration) as netns_fd:
                listeners = self._listeners_for(step, tunnel, netns_fd)
                if listeners is None:
                    self.book.offer_lost(step.uid, step.tunnel)
                    return
                try:
                    self._capture(step, netns_fd, listeners.numbers)
                finally:
                    listeners.close()
        except NamespaceGone as exc:
            event(log, logging.INFO, "pod.namespace_gone", uid=step.uid, error=exc)
            self.book.gone(step.uid)
        except (MeshError, OSError) as exc:
            self._failed(step.uid, exc)

    def _listeners_for(
        self, step: plan.CapturePod, tunnel: zds.Tunnel, netns_fd: int
    ) -> zds.Descriptors | None:
        """Those of the acknowledgement, or copies of a foreign ztunnel's. None: ask it again."""
        kept = self._listeners.pop((step.uid, step.tunnel), None)
        if kept is not None:
            return kept
        if tunnel.is_ours:
            return None
        copies = sockets.steal_listeners(tunnel.pid, netns_fd)
        if set(copies) != set(sockets.TUNNEL_PORTS):
            zds.Descriptors(list(copies.values())).close()
            raise ListenersMissing(f"ztunnel {tunnel.pid} listens on {sorted(copies)} only")
        return zds.Descriptors([copies[port] for port in sockets.TUNNEL_PORTS])

    def _capture(self, step: plan.CapturePod, netns_fd: int, fds: tuple[int, ...]) -> None:
        outbound, plaintext, hbone = fds
        if netns.inode_of_socket(outbound) != netns.inode_of_path(
            Path(f"/proc/self/fd/{netns_fd}")
        ):
            raise ListenersMissing("the outbound listener is in another namespace")
        request = PodCapture(
            uid=step.uid,
            netns_fd=netns_fd,
            addresses=tuple(ip_address(bytes(each)) for each in step.addresses),
            outbound_port=_port(outbound),
            hbone_listener_fd=hbone,
            plaintext_listener_fd=plaintext,
        )
        was_captured = self.book.pods()[step.uid].capture is not None
        self._datapath.capture(request)
        self.book.captured(step)
        if not was_captured:
            self._escaped[step.uid] = _older_connections(netns_fd)
            took_s = self._clock.monotonic_s() - self._waiting_since_s.get(step.uid, 0.0)
            self.stats.enrolments += 1
            self.stats.enrolment_s_sum += took_s
            self.stats.enrolment_s_last = took_s
            event(log, logging.INFO, "pod.captured", uid=step.uid, took_s=round(took_s, 4))

    def _failed(self, uid: str, error: MeshError | OSError) -> None:
        reason = error.reason if isinstance(error, MeshError) else "os"
        self.stats.failures[reason] = self.stats.failures.get(reason, 0) + 1
        event(log, logging.WARNING, "pod.failed", uid=uid, reason=reason, error=error)
        self.book.failed(uid, reason, self._clock.monotonic_s())

    # A ztunnel's lane

    async def serve_tunnel(self, tunnel: zds.Tunnel) -> None:
        """Runs as long as the ztunnel is connected; leaving it ends nothing that is captured."""
        folder = tunnel_cgroup.settle(self._host.cgroup_root, self._host.node, tunnel.pid)
        self._datapath.exempt(folder)
        self._exempted.add(folder)
        self.tunnels[tunnel.number] = tunnel
        self.book.tunnel_joined(tunnel.number)
        self._news()
        try:
            await self._talk(tunnel)
        finally:
            del self.tunnels[tunnel.number]
            self.book.tunnel_left(tunnel.number)
            for key in [key for key in self._listeners if key[1] == tunnel.number]:
                self._listeners.pop(key).close()
            if not self.tunnels:
                captured = len(self.book.report())
                event(log, logging.ERROR, "ztunnel.none_left", captured_pods_fail_closed=captured)
            self._news()

    async def _talk(self, tunnel: zds.Tunnel) -> None:
        snapshot_sent = False
        while True:
            news = self.pulse.next()
            step = self.book.tunnel_step(tunnel.number, self._clock.monotonic_s())
            match step:
                case plan.AddToTunnel():
                    await self._add(tunnel, step)
                    # At once: a ztunnel that saw the snapshot's end has its pods' connections.
                    self._kernel_lane()
                case plan.DeleteFromTunnel():
                    await self._delete(tunnel, step)
                case None if not snapshot_sent and tunnel.number == self.book.node.newest:
                    # Its end makes a ztunnel drop what it was not sent, and an older one may
                    # still serve what only the newest is sent now.
                    await tunnel.snapshot_sent()
                    snapshot_sent = True
                case None:
                    await news.wait()
                    continue
            self._news()

    async def _add(self, tunnel: zds.Tunnel, step: plan.AddToTunnel) -> None:
        registration = self._known.get(step.uid)
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
                self.book.adding(step)
                listeners = await tunnel.add(info, netns_fd)
        except NamespaceGone as exc:
            event(log, logging.INFO, "pod.namespace_gone", uid=step.uid, error=exc)
            self.book.gone(step.uid)
            return
        except (zds.TunnelRefused, KernelError) as exc:
            if self.book.pods()[step.uid].netns == step.netns:  # else nobody asks again
                self._failed(step.uid, exc)
            return
        if tunnel.is_ours and len(listeners) != _LISTENERS:
            got = len(listeners)
            listeners.close()
            self._failed(step.uid, ListenersMissing(f"{got} descriptors with the acknowledgement"))
            return
        if len(listeners):
            old = self._listeners.pop((step.uid, step.tunnel), None)
            if old is not None:
                old.close()
            self._listeners[step.uid, step.tunnel] = listeners
        self.book.added(step)

    async def _delete(self, tunnel: zds.Tunnel, step: plan.DeleteFromTunnel) -> None:
        kept = self._listeners.pop((step.uid, step.tunnel), None)
        if kept is not None:
            kept.close()
        try:
            await tunnel.delete(step.uid)
        except zds.TunnelRefused as exc:
            # It says it does not have the pod: what we want. Its word is logged, not argued with.
            event(log, logging.WARNING, "ztunnel.delete_refused", uid=step.uid, error=exc)
        self.book.removed(step)

    def uncaptured_connections(self, uid: str) -> int | None:
        """Connections from before the capture that still live; None: before our time too."""
        escaped, known = self._escaped.get(uid), self._known.get(uid)
        if not escaped or known is None:
            return None if escaped is None else 0
        try:
            with registry.opened_again(known) as netns_fd:
                left = {each.inode for each in sockets.connections(netns_fd)}
        except (MeshError, OSError):
            return None
        self._escaped[uid] = escaped & left
        return len(escaped & left)

    # What vanished without a word

    async def _run_sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        for registration in self._known:
            pod = self.book.pods().get(registration.uid)
            if pod is not None and pod.netns is not None and not registry.is_there(registration):
                event(log, logging.INFO, "pod.namespace_gone", uid=registration.uid)
                self.book.gone(registration.uid)
        self._sweep_cgroups()
        self._news()

    def _sweep_cgroups(self) -> None:
        """A ztunnel stays exempt as long as any process of it lives: it may still be draining."""
        live = {tunnel.pid for tunnel in self.tunnels.values()}
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


def _older_connections(netns_fd: int) -> frozenset[int]:
    """Capture is for new connections: what is open now goes on as it is."""
    try:
        found = sockets.connections(netns_fd)
    except (KernelError, OSError) as exc:
        event(log, logging.WARNING, "pod.connections_unknown", error=exc)
        return frozenset()
    return frozenset(
        each.inode
        for each in found
        if each.state == _ESTABLISHED and each.local != each.remote and not each.remote.is_loopback
    )


def _told(registration: Registration, intent: Intent) -> Registration:
    """The registration with what the control plane says of the pod."""
    addresses = registry.one_of_each_family(intent.addresses)
    return replace(
        registration,
        namespace=intent.namespace,
        name=intent.name,
        service_account=intent.service_account,
        addresses=tuple(map(format_address, addresses)) or registration.addresses,
    )


def _port(listener_fd: int) -> int:
    with socket.socket(fileno=os.dup(listener_fd)) as listener:
        return int(listener.getsockname()[1])
