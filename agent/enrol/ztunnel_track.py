"""A ztunnel's track: tells it its pods, some at a time; decides no order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import assert_never

from agent import registry, zds
from agent.enrol import plan
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import KernelTrack, ListenersMissing
from agent.registry import NamespaceGone
from control.kit.errors import KernelError, MeshError
from control.kit.log import event

log = logging.getLogger("enrol")

# Requests on their way to a ztunnel of ours, which sees to them side by side: one waits for a
# certificate of the control plane. Istio's gets one at a time.
REQUESTS_MAX = 16
# Pods that had connections have a ztunnel that starts to themselves, for so long at most.
FIRST_S = 1.0
_ROLES = 3  # outbound, plaintext, HBONE of each worker: the order of C3


class ZtunnelTrack:
    """One for each connected ztunnel. The kernel's track takes the steps that it makes ready."""

    def __init__(
        self,
        facts: Facts,
        kernel: KernelTrack,
        ztunnel: zds.Ztunnel,
        first: Collection[str] = (),
    ) -> None:
        """`first`: uids of the pods that have it to themselves, while they are asked for."""
        self._facts = facts
        self._kernel = kernel
        self._ztunnel = ztunnel
        self._first = frozenset(first)
        self._asked: set[str] = set()  # uids of requests without an answer

    async def run(self) -> None:
        """Take steps until cancelled, or until the ztunnel's connection fails."""
        handle = asyncio.get_running_loop().call_later(FIRST_S, self._end_first)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._take_steps(tasks)
        finally:
            handle.cancel()

    def _end_first(self) -> None:
        """Let the others come, whatever the first ones still wait for."""
        self._first = frozenset()
        self._facts.news()

    async def _take_steps(self, tasks: asyncio.TaskGroup) -> None:
        snapshot_sent = False
        while True:
            news = self._facts.pulse.next()
            step = self._next()
            if step is not None:
                finishing = self._begun(step)
                if finishing is not None:
                    self._asked.add(step.uid)
                    tasks.create_task(self._finish(step.uid, finishing), name="ztunnel.step")
                else:
                    self._kernel.take_steps()
                    self._facts.news()
            elif not self._asked and not snapshot_sent and not self._ztunnel.is_leaving:
                await self._end_snapshot()
                snapshot_sent = True
                self._facts.news()
            else:
                await news.wait()

    def _next(self) -> plan.AddToZtunnel | plan.DeleteFromZtunnel | None:
        """A step that may begin beside those under way; one of each pod."""
        if len(self._asked) >= (REQUESTS_MAX if self._ztunnel.is_side_by_side else 1):
            return None
        now_s = self._facts.clock.monotonic_s()
        step = self._facts.book.ztunnel_step(self._ztunnel.number, now_s, self._asked)
        if isinstance(step, plan.AddToZtunnel) and self._comes_later(step.uid):
            return None
        return step

    def _comes_later(self, uid: str) -> bool:
        return uid not in self._first and not self._first.isdisjoint(self._asked)

    def _begun(
        self, step: plan.AddToZtunnel | plan.DeleteFromZtunnel
    ) -> Callable[[], Awaitable[None]] | None:
        """Send a step's request; the rest of the step, or None if it has failed."""
        match step:
            case plan.AddToZtunnel():
                return self._add(step)
            case plan.DeleteFromZtunnel():
                return self._delete(step)
            case _:
                assert_never(step)

    async def _finish(self, uid: str, finish: Callable[[], Awaitable[None]]) -> None:
        try:
            await finish()
        finally:
            self._asked.discard(uid)
        # At once: after the end of the snapshot a ztunnel has its pods' connections.
        self._kernel.take_steps()
        self._facts.news()

    async def _end_snapshot(self) -> None:
        """The end of a snapshot makes a ztunnel drop pods that it was not sent, and ready. One that
        is not the newest may serve pods from before a restart of ours: it keeps them. The newest
        keeps those that are captured still, or linger: a pod that leaves is released before it is
        dropped."""
        number, book = self._ztunnel.number, self._facts.book
        if number != book.node.newest:
            for registration in list(self._facts.known):
                await self._ztunnel.keep(registration.uid)
        else:
            for uid in book.untold(number, self._facts.clock.monotonic_s()):
                book.keeping(uid, number)
                await self._ztunnel.keep(uid)
        await self._ztunnel.snapshot_sent()

    def _add(self, step: plan.AddToZtunnel) -> Callable[[], Awaitable[None]] | None:
        registration = self._facts.known.get(step.uid)
        if registration is None:
            raise AssertionError(f"a step about an unknown pod: {step}")
        info = zds.PodInfo(
            step.uid,
            registration.name,
            registration.namespace,
            registration.service_account or "default",
        )
        try:
            with registry.opened_again(registration) as netns_fd:
                self._facts.book.adding(step)
                request = self._ztunnel.add(info, netns_fd)
        except NamespaceGone as exc:
            self._facts.vanished(registration)
            if self._facts.known.get(step.uid) is registration:
                self._failed(step, exc)  # it could not be looked for: not at once again
            return None
        except (zds.ZtunnelRefused, KernelError) as exc:
            self._failed(step, exc)
            return None
        return lambda: self._added(step, request)

    async def _added(self, step: plan.AddToZtunnel, request: zds.Asked) -> None:
        try:
            listeners = await self._ztunnel.added(request)
        except zds.ZtunnelRefused as exc:
            self._failed(step, exc)
            return
        count = len(listeners)
        if self._ztunnel.is_ours and (not count or count % _ROLES):
            listeners.close()
            missing = ListenersMissing(f"{count} descriptors with the acknowledgement")
            self._facts.failed(step.uid, missing)
            return
        if len(listeners):
            self._close_listeners(step)
            self._facts.listeners[step.uid, step.ztunnel] = listeners
            await self._kernel.prepare(step.uid)  # if the ztunnel ends meanwhile, all is closed
        self._facts.book.added(step, self._facts.clock.monotonic_s())

    def _failed(self, step: plan.AddToZtunnel, error: MeshError) -> None:
        if self._facts.book.pods()[step.uid].netns == step.netns:  # else it is not asked again
            self._facts.failed(step.uid, error)

    def _delete(self, step: plan.DeleteFromZtunnel) -> Callable[[], Awaitable[None]] | None:
        self._close_listeners(step)
        request = self._ztunnel.delete(step.uid)
        return lambda: self._deleted(step, request)

    async def _deleted(self, step: plan.DeleteFromZtunnel, request: zds.Asked) -> None:
        try:
            (await request.answer()).close()
        except zds.ZtunnelRefused as exc:
            # It says that it does not have the pod, which is what we want.
            event(log, logging.WARNING, "ztunnel.delete_refused", uid=step.uid, error=exc)
        self._facts.book.removed(step)

    def _close_listeners(self, step: plan.AddToZtunnel | plan.DeleteFromZtunnel) -> None:
        """Close listeners of an earlier acknowledgement, which the kernel never got."""
        kept = self._facts.listeners.pop((step.uid, step.ztunnel), None)
        if kept is not None:
            kept.close()
            self._kernel.drop_prepared(step.uid)
