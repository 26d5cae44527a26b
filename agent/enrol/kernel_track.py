"""The kernel's track: captures and releases pods as soon as a step is ready; decides no order.

No step awaits, so no other code sees a half-taken one. A failure concerns its pod alone and leaves
it closed: not captured and not started, or captured as before.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

from agent import registry, zds
from agent.datapath import listeners, pods
from agent.datapath.audit import Difference
from agent.datapath.lookup import Prepared
from agent.datapath.pods import CapturedPod, PodCapture
from agent.datapath.shortcuts import Shortcuts
from agent.enrol import plan
from agent.enrol.aside import made_aside
from agent.enrol.earlier import Earlier
from agent.enrol.facts import Facts
from agent.enrol.shortcut_track import ShortcutTrack
from agent.registry import NamespaceGone, Registration
from control.kit.errors import KernelError, MeshError
from control.kit.log import event
from control.model.address import Address

log = logging.getLogger("enrol")


class ListenersMissing(MeshError):
    reason: ClassVar[str] = "listeners_missing"


class Audit(Protocol):
    """The kernel, compared with what should be in force."""

    def node(self) -> list[Difference]: ...
    def pod(self, uid: str) -> list[Difference]: ...


class Datapath(Protocol):
    """The kernel half, as far as it is used here."""

    @property
    def audit(self) -> Audit: ...

    @property
    def shortcuts(self) -> Shortcuts | None: ...

    def prepare(self, netns_fd: int, cookie: int, addresses: tuple[Address, ...]) -> Prepared: ...
    def capture(
        self, pod: PodCapture, *, shortcut_later: bool = False, prepared: Prepared | None = None
    ) -> CapturedPod: ...
    def hand_over(self, pod: PodCapture) -> CapturedPod: ...
    def set_direct(self, uid: str, direct: bool) -> CapturedPod: ...
    def set_probes(self, uid: str, ports: frozenset[int]) -> None: ...
    def release(self, uid: str) -> bool: ...
    def captured(self) -> list[CapturedPod]: ...
    def exempt(self, cgroup: Path) -> None: ...
    def unexempt(self, cgroup: Path) -> None: ...
    def is_exempt(self, cgroup: Path) -> bool: ...
    def forget(self, uid: str) -> None: ...
    def forget_entry(self, cookie: int) -> None: ...
    def remembers_s(self) -> float: ...


class Direct(Protocol):
    """The direct path, which hears of captures and releases after the kernel."""

    def newest(self, pid: int | None) -> None: ...
    def captured(self, uid: str, workload: int, addresses: tuple[Address, ...]) -> None: ...
    def released(self, uid: str, workload: int = 0) -> None: ...
    def forgotten(self, uid: str) -> None: ...


class KernelTrack:
    def __init__(self, facts: Facts, datapath: Datapath, direct: Direct) -> None:
        self._facts = facts
        self._datapath = datapath
        self._direct = direct
        self.shortcuts = ShortcutTrack(facts)
        self.earlier = Earlier(facts)
        self._prepared: dict[str, Prepared] = {}  # by uid, for captures that are ready

    async def run(self) -> None:
        while True:
            news = self._facts.pulse.next()
            if self.take_steps():
                continue
            now_s = self._facts.clock.monotonic_s()
            deadline_s = self._facts.book.next_deadline_s(now_s)
            wait_s = None if deadline_s is None else max(deadline_s - now_s, 0.01)
            try:
                async with asyncio.timeout(wait_s):
                    await news.wait()
            except TimeoutError:
                self._facts.pulse.beat()  # the step may be a ztunnel's

    def take_steps(self) -> bool:
        """Take every kernel step that is ready; False: there was none."""
        taken = self._facts.book.kernel_steps(self._facts.clock.monotonic_s())
        for step in taken:
            match step:
                case plan.CapturePod():
                    self._try_capture(step)
                case plan.SetDirect():
                    self._set_direct(step)
                case plan.Release(uid):
                    self._release(uid)
                case plan.Forget(uid):
                    self._facts.known.remove(uid)
                    self._datapath.forget(uid)
                    self._facts.waiting_since_s.pop(uid, None)
                    self.earlier.forget(uid)
                    self.drop_prepared(uid)
                    self._facts.book.forgotten(uid)
                    self._direct.forgotten(uid)
                    self._facts.watches.changed(uid)
                    event(log, logging.INFO, "pod.forgotten", uid=uid)
        if taken:
            self._facts.news()
        return bool(taken)

    def _set_direct(self, step: plan.SetDirect) -> None:
        if step.direct and self.earlier.has_dialled(step.uid) and self._hold(step.uid):
            return
        try:
            pod = self._datapath.set_direct(step.uid, step.direct)
        except (KernelError, OSError) as exc:
            self._facts.failed(step.uid, exc)
            return
        self._facts.book.direct_set(step)
        if step.direct:
            self._note(step.uid, held_until_s=0.0)
        self.tell_direct(pod)
        event(log, logging.INFO, "pod.direct", uid=step.uid, direct=step.direct)

    def tell_direct(self, pod: CapturedPod) -> None:
        """Tell the direct path about a pod that is captured."""
        if pod.direct and pod.workload_id:
            self._direct.captured(pod.uid, pod.workload_id, pod.addresses)
        else:
            self._direct.released(pod.uid, pod.workload_id)

    def _release(self, uid: str) -> None:
        try:
            self._datapath.release(uid)
        except (KernelError, OSError) as exc:
            # It stays captured, so its traffic is refused or tunnelled; tried again later.
            self._facts.failed(uid, exc)
            return
        self._direct.released(uid)
        self.earlier.forget(uid)
        now_s = self._facts.clock.monotonic_s()
        self._facts.book.released(uid, now_s)
        if self._facts.book.pods()[uid].netns is not None:  # else it is about to be forgotten
            self._note(uid, released_s=now_s)
        event(log, logging.INFO, "pod.released", uid=uid)

    def _note(
        self, uid: str, *, released_s: float | None = None, held_until_s: float | None = None
    ) -> None:
        """Write down, for the next agent, since when the pod lingers, or until when no connection
        of it goes direct. None: as it is written."""
        was = self._facts.known.get(uid)
        if was is not None:
            released_s = was.released_s if released_s is None else released_s
            held_until_s = was.held_until_s if held_until_s is None else held_until_s
            new = replace(was, released_s=released_s, held_until_s=held_until_s)
            self._facts.known.learn(new)

    def _hold(self, uid: str) -> bool:
        """Leave the direct path to others until the host has forgotten what the pod did before its
        capture; False: there is nothing to forget."""
        until_s = self.earlier.held_until_s(uid, self._datapath.remembers_s())
        if not until_s:
            return False
        self._facts.book.held(uid, until_s)
        self._note(uid, held_until_s=until_s)
        return True

    def _try_capture(self, step: plan.CapturePod) -> None:
        registration = self._facts.known.get(step.uid)
        ztunnel = self._facts.ztunnels.get(step.ztunnel)
        if registration is None or ztunnel is None:
            raise AssertionError(f"a step about an unknown pod or ztunnel: {step}")
        try:
            with registry.opened_again(registration) as netns_fd:
                received = self._listeners_for(step, ztunnel, netns_fd)
                if received is None:
                    self._facts.book.handover_lost(step.uid, step.ztunnel)
                    return
                try:
                    self._capture(step, netns_fd, received.numbers)
                finally:
                    received.close()
        except NamespaceGone:
            self._facts.vanished(registration)
        except (MeshError, OSError) as exc:
            self._facts.failed(step.uid, exc)
        finally:
            self.drop_prepared(step.uid)

    async def prepare(self, uid: str) -> None:
        """Have a thread make what the capture of a pod needs; without it the capture does."""
        registration, pod = self._facts.known.get(uid), self._facts.book.pods()[uid]
        if pod.capture is not None or registration is None:
            return
        try:
            made = await made_aside(lambda: self._made(registration, pod.addresses))
        except (MeshError, OSError) as exc:
            event(log, logging.DEBUG, "pod.not_prepared", uid=uid, error=exc)
            return
        self.drop_prepared(uid)
        self._prepared[uid] = made

    def _made(self, registration: Registration, addresses: tuple[Address, ...]) -> Prepared:
        with registry.opened_again(registration) as netns_fd:
            return self._datapath.prepare(netns_fd, registration.cookie, addresses)

    def drop_prepared(self, uid: str) -> None:
        """Close what waits for a capture that does not come, or that is done."""
        made = self._prepared.pop(uid, None)
        if made is not None:
            made.close()

    def _listeners_for(
        self, step: plan.CapturePod, ztunnel: zds.Ztunnel, netns_fd: int
    ) -> zds.Descriptors | None:
        """Listeners of its acknowledgement, or copies of a foreign one's; None: ask it again."""
        kept = self._facts.listeners.pop((step.uid, step.ztunnel), None)
        if kept is not None:
            return kept
        if ztunnel.is_ours:
            return None
        copies = listeners.copied(ztunnel.pid, netns_fd)
        if set(copies) != set(listeners.ZTUNNEL_PORTS):
            zds.Descriptors(list(copies.values())).close()
            raise ListenersMissing(f"ztunnel {ztunnel.pid} listens on {sorted(copies)} only")
        return zds.Descriptors([copies[port] for port in listeners.ZTUNNEL_PORTS])

    def _capture(self, step: plan.CapturePod, netns_fd: int, fds: tuple[int, ...]) -> None:
        held = self._facts.book.pods()[step.uid].capture
        if held is None and step.direct and self._hold(step.uid):
            step = replace(step, direct=False)
        request = PodCapture(
            uid=step.uid,
            netns_fd=netns_fd,
            addresses=step.addresses,
            listeners=pods.by_worker(fds),
            direct=step.direct,
        )
        if held is not None and plan.is_handover(held, step):
            self._datapath.hand_over(request)
            self._facts.book.captured(step)
            return
        prepared = self._prepared.get(step.uid)
        pod = self._datapath.capture(request, shortcut_later=True, prepared=prepared)
        self.shortcuts.captured(step.uid, self._datapath.shortcuts)
        self._facts.book.captured(step)
        self._note(step.uid, released_s=0.0)
        self.tell_direct(pod)
        if held is None:
            self.earlier.captured(step.uid, netns_fd)
            now_s = self._facts.clock.monotonic_s()
            took_s = now_s - self._facts.waiting_since_s.get(step.uid, now_s)
            self._facts.stats.enrolments += 1
            self._facts.stats.enrolment_s_sum += took_s
            event(log, logging.INFO, "pod.captured", uid=step.uid, took_s=round(took_s, 4))
