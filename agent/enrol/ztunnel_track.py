"""A ztunnel's track: tells it its pods, one step at a time; decides no order."""

from __future__ import annotations

import logging
from typing import assert_never

from agent import registry, zds
from agent.enrol import plan
from agent.enrol.facts import Facts
from agent.enrol.kernel_track import KernelTrack, ListenersMissing
from agent.registry import NamespaceGone
from control.kit.errors import KernelError
from control.kit.log import event

log = logging.getLogger("enrol")

_ROLES = 3  # outbound, plaintext, HBONE of each worker: the order of C3


class ZtunnelTrack:
    """One for each connected ztunnel. The kernel's track takes the steps that it makes ready."""

    def __init__(self, facts: Facts, kernel: KernelTrack, ztunnel: zds.Ztunnel) -> None:
        self._facts = facts
        self._kernel = kernel
        self._ztunnel = ztunnel

    async def run(self) -> None:
        """Take steps until cancelled, or until the ztunnel's connection fails."""
        snapshot_sent = False
        number = self._ztunnel.number
        while True:
            news = self._facts.pulse.next()
            step = self._facts.book.ztunnel_step(number, self._facts.clock.monotonic_s())
            match step:
                case plan.AddToZtunnel():
                    await self._add(step)
                    # At once: after the end of the snapshot a ztunnel has its pods' connections.
                    self._kernel.take_steps()
                case plan.DeleteFromZtunnel():
                    await self._delete(step)
                case None if not snapshot_sent and not self._ztunnel.is_leaving:
                    await self._end_snapshot()
                    snapshot_sent = True
                case None:
                    await news.wait()
                    continue
                case _:
                    assert_never(step)
            self._facts.news()

    async def _end_snapshot(self) -> None:
        """The end of a snapshot makes a ztunnel drop pods that it was not sent, and ready. One that
        is not the newest may serve pods from before a restart of ours: it keeps them."""
        if self._ztunnel.number != self._facts.book.node.newest:
            for registration in list(self._facts.known):
                await self._ztunnel.keep(registration.uid)
        await self._ztunnel.snapshot_sent()

    async def _add(self, step: plan.AddToZtunnel) -> None:
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
                listeners = await self._ztunnel.add(info, netns_fd)
        except NamespaceGone:
            self._facts.vanished(registration)
            return
        except (zds.ZtunnelRefused, KernelError) as exc:
            if self._facts.book.pods()[step.uid].netns == step.netns:  # else it is not asked again
                self._facts.failed(step.uid, exc)
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
        self._facts.book.added(step)

    async def _delete(self, step: plan.DeleteFromZtunnel) -> None:
        self._close_listeners(step)
        try:
            await self._ztunnel.delete(step.uid)
        except zds.ZtunnelRefused as exc:
            # It says that it does not have the pod, which is what we want.
            event(log, logging.WARNING, "ztunnel.delete_refused", uid=step.uid, error=exc)
        self._facts.book.removed(step)

    def _close_listeners(self, step: plan.AddToZtunnel | plan.DeleteFromZtunnel) -> None:
        """Close listeners of an earlier acknowledgement, which the kernel never got."""
        kept = self._facts.listeners.pop((step.uid, step.ztunnel), None)
        if kept is not None:
            kept.close()
