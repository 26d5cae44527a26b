"""Pods that this ztunnel serves: their namespaces, their listening sockets, and ready workers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from control.kit.errors import ControlError, MeshError
from control.kit.log import event
from control.model.identity import SpiffeId
from ztunnel.supervisor.bind import Listeners, open_listeners

log = logging.getLogger("pods")

PODS_MAX = 1024  # on one node; Kubernetes nodes have 110 to 500
READY_DEADLINE_S = 4.0  # the agent waits 5 s for its answer
# A ztunnel that starts gets a pod's connections with its answer, perhaps from an older one that has
# a certificate: so it waits until its own has come, or cannot be had now.
CERTIFICATES_WAIT_S = 9.0  # for all pods of the first snapshot together


class TooManyPods(MeshError):
    reason = "too_many_pods"


class WorkersNotReady(ControlError):
    reason = "workers_not_ready"


@dataclass(slots=True)
class HeldPod:
    """One pod. `netns` and the listeners belong to this object until `close()`."""

    uid: str
    name: str
    namespace: str
    service_account: str
    netns: int
    inode: int
    identity: SpiffeId
    listeners: tuple[Listeners, ...]
    ready_workers: set[int] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        for each in self.listeners:
            each.close()
        os.close(self.netns)


class PodTellers(Protocol):
    """The workers, which hear of each pod."""

    def add_pod(self, pod: HeldPod) -> None: ...

    def delete_pod(self, uid: str) -> None: ...


class IdentityHolder(Protocol):
    """The certificates, which are kept for the identities that pods hold."""

    def hold(self, identity: SpiffeId, holder: str) -> None: ...

    def release(self, identity: SpiffeId, holder: str) -> None: ...

    async def answer(self, identity: SpiffeId) -> None: ...


Ready = Callable[[], Awaitable[tuple[int, ...]]]  # the sockets, as soon as they serve


class Listen(Protocol):
    """Opens each worker's listeners in a namespace; NamespaceUnusable: it cannot."""

    def __call__(self, netns: int, workers: int, *, fixed_ports: bool) -> tuple[Listeners, ...]: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A pod as the agent names it."""

    uid: str
    name: str
    namespace: str
    service_account: str


class HeldPods:
    """Adds and removes pods, idempotently; one change at a time."""

    def __init__(
        self,
        tellers: PodTellers,
        identities: IdentityHolder,
        *,
        workers: int,
        trust_domain: str,
        fixed_ports: bool,
        listen: Listen = open_listeners,
    ) -> None:
        self._listen = listen
        self._tellers = tellers
        self._identities = identities
        self._workers = workers
        self._trust_domain = trust_domain
        self._fixed_ports = fixed_ports
        self._pods: dict[str, HeldPod] = {}
        self.started = 0
        self.stopped = 0
        self._patience_s = CERTIFICATES_WAIT_S  # while none waits
        self._uncertified = 0  # pods that wait, at the same time
        self._impatient_s = 0.0  # none of them any longer
        self.snapshot = asyncio.Event()  # set once the agent has named all its pods

    def all(self) -> Iterable[HeldPod]:
        return tuple(self._pods.values())

    def get(self, uid: str) -> HeldPod | None:
        return self._pods.get(uid)

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: object) -> bool:
        return uid in self._pods

    def add(self, claim: Claim, netns: int) -> Ready:
        """Serve the pod; `netns` belongs to us from here on. MeshError: it is not served."""
        inode = os.fstat(netns).st_ino
        known = self._pods.get(claim.uid)
        if known is not None and known.inode == inode:
            os.close(netns)
            pod = known
        else:
            identity = SpiffeId(self._trust_domain, claim.namespace, claim.service_account)
            # Taken before the old pod lets go, so that a replaced pod keeps its certificate.
            self._identities.hold(identity, _holder(claim.uid, inode))
            if known is not None:
                event(log, logging.INFO, "pod.replaced", uid=claim.uid)
                self.delete(claim.uid)
            pod = self._open(claim, netns, inode, identity)
        return lambda: self._served(pod)

    async def _served(self, pod: HeldPod) -> tuple[int, ...]:
        """All workers' sockets, once every worker listens on its own. MeshError: not yet; asking
        again is fine. An agent that expects fixed ports gets no sockets: Istio's has no room for
        them, and takes a truncated answer for an error."""
        until_s = asyncio.get_running_loop().time() + READY_DEADLINE_S
        await self._all_ready(pod)
        if not self.snapshot.is_set():
            await self._certified(pod, until_s)
        if self._fixed_ports:
            return ()
        return tuple(chain.from_iterable(each.descriptors() for each in pod.listeners))

    def _open(self, claim: Claim, netns: int, inode: int, identity: SpiffeId) -> HeldPod:
        try:
            if len(self._pods) >= PODS_MAX:
                raise TooManyPods(f"more than {PODS_MAX} pods on one node")
            listeners = self._listen(netns, self._workers, fixed_ports=self._fixed_ports)
        except MeshError:
            os.close(netns)
            self._identities.release(identity, _holder(claim.uid, inode))
            raise
        pod = HeldPod(
            claim.uid,
            claim.name,
            claim.namespace,
            claim.service_account,
            netns,
            inode,
            identity,
            listeners,
        )
        self._pods[claim.uid] = pod
        self.started += 1
        self._tellers.add_pod(pod)
        event(
            log,
            logging.INFO,
            "pod.added",
            uid=claim.uid,
            pod=f"{claim.namespace}/{claim.name}",
            identity=identity,
            netns=inode,
        )
        return pod

    async def _all_ready(self, pod: HeldPod) -> None:
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                while len(pod.ready_workers) < self._workers:
                    pod.changed.clear()
                    await pod.changed.wait()
        except TimeoutError as exc:
            ready = len(pod.ready_workers)
            raise WorkersNotReady(f"{ready} of {self._workers} workers listen") from exc

    async def _certified(self, pod: HeldPod, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        if not self._uncertified:
            self._impatient_s = loop.time() + self._patience_s
        self._uncertified += 1
        try:
            async with asyncio.timeout_at(min(self._impatient_s, until_s)):
                await self._identities.answer(pod.identity)
        except TimeoutError:
            event(log, logging.WARNING, "pod.without_certificate", uid=pod.uid)
        finally:
            self._uncertified -= 1
            if not self._uncertified:
                self._patience_s = max(self._impatient_s - loop.time(), 0.0)

    def delete(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        self.stopped += 1
        self._tellers.delete_pod(uid)
        self._identities.release(pod.identity, _holder(uid, pod.inode))
        pod.close()
        event(log, logging.INFO, "pod.deleted", uid=uid, pod=f"{pod.namespace}/{pod.name}")

    def keep_only(self, uids: set[str]) -> None:
        """Delete every pod that the agent's snapshot does not name."""
        self.snapshot.set()
        for uid in self._pods.keys() - uids:
            self.delete(uid)

    def worker_ready(self, worker: int, uid: str) -> None:
        pod = self._pods.get(uid)
        if pod is not None:
            pod.ready_workers.add(worker)
            pod.changed.set()

    def worker_lost(self, worker: int) -> None:
        for pod in self._pods.values():
            pod.ready_workers.discard(worker)

    def close_listeners(self) -> None:
        """Close all listeners: from here on the kernel refuses connections, and queues none."""
        for pod in self._pods.values():
            for each in pod.listeners:
                each.close()


def _holder(uid: str, inode: int) -> str:
    return f"{uid}@{inode}"
