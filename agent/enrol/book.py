"""Keeps the facts about every pod and turns what happened into new facts; never acts, never waits.

The shell (enroller.py) tells it each event and asks which steps may be taken now. Every step it
names is safe by itself, in any order with the others: per pod only the first of what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from agent.enrol import plan
from agent.enrol.plan import Capture, Node, Offer, Pod, State, Step
from control.model.address import Address

RETRY_S = 5.0  # a ztunnel that refuses a pod is asked again at the pace of Istio's agent


class Book:
    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._pods: dict[str, Pod] = {}
        self._tunnels: list[int] = []
        self._since: dict[str, datetime] = {}  # uid → when its state last changed
        self._states: dict[str, tuple[State, str]] = {}

    @property
    def node(self) -> Node:
        return Node(tuple(self._tunnels), self._drain_s)

    def pods(self) -> Mapping[str, Pod]:
        return self._pods

    # What happened

    def registered(
        self, uid: str, netns: int, addresses: tuple[Address, ...], enrolled: bool | None
    ) -> None:
        """Also for a uid that is known: the same namespace changes nothing but the addresses."""
        known = self._pods.get(uid)
        if known is None:
            self._pods[uid] = Pod(uid, netns, addresses, enrolled)
        else:
            fresh = known if known.netns == netns else _retried(known)
            self._pods[uid] = replace(fresh, netns=netns, addresses=addresses, enrolled=enrolled)

    def adopted(self, uid: str, capture: Capture) -> None:
        """The kernel has it in force since before we started."""
        known = self._pods.get(uid, Pod(uid, None))
        self._pods[uid] = replace(known, capture=capture)

    def wanted(
        self, uid: str, enrolled: bool | None, addresses: tuple[Address, ...] | None
    ) -> None:
        """The control plane's word. None for the addresses: keep what we know."""
        pod = self._pods[uid]
        if enrolled is not pod.enrolled or (addresses and addresses != pod.addresses):
            kept = addresses or pod.addresses
            self._pods[uid] = replace(_retried(pod), enrolled=enrolled, addresses=kept)

    def gone(self, uid: str) -> None:
        pod = self._pods.get(uid)
        if pod is not None and pod.netns is not None:
            self._pods[uid] = replace(_retried(pod), netns=None)

    def tunnel_joined(self, tunnel: int) -> None:
        self._tunnels.append(tunnel)
        for uid, pod in self._pods.items():
            self._pods[uid] = _retried(pod)  # the failure was another ztunnel's

    def tunnel_left(self, tunnel: int) -> None:
        self._tunnels.remove(tunnel)
        for uid in self._pods:
            self._set_offer(uid, tunnel, None)

    def adding(self, step: plan.AddToTunnel) -> None:
        """Before it is sent: from now on the ztunnel may hold the namespace."""
        self._set_offer(step.uid, step.tunnel, Offer(step.tunnel, step.netns, ready=False))

    def added(self, step: plan.AddToTunnel) -> None:
        self._pods[step.uid] = _retried(self._pods[step.uid])
        self._set_offer(step.uid, step.tunnel, Offer(step.tunnel, step.netns))

    def removed(self, step: plan.DeleteFromTunnel) -> None:
        self._set_offer(step.uid, step.tunnel, None)

    def _set_offer(self, uid: str, tunnel: int, offer: Offer | None) -> None:
        pod = self._pods[uid]
        others = tuple(each for each in pod.offers if each.tunnel != tunnel)
        self._pods[uid] = replace(pod, offers=others if offer is None else (*others, offer))

    def captured(self, step: plan.CapturePod) -> None:
        pod = self._pods[step.uid]
        capture = Capture(step.netns, step.addresses, step.tunnel)
        fresh = pod.capture is None
        withdrawn_s = None if fresh else pod.withdrawn_s
        self._pods[step.uid] = replace(_retried(pod), capture=capture, withdrawn_s=withdrawn_s)

    def offer_lost(self, uid: str, tunnel: int) -> None:
        """The ztunnel acknowledged the pod, yet its listeners cannot be had: ask again."""
        offer = Offer(tunnel, self._pods[uid].netns or 0, ready=False)
        self._set_offer(uid, tunnel, offer)

    def released(self, uid: str) -> None:
        self._pods[uid] = replace(_retried(self._pods[uid]), capture=None, withdrawn_s=None)

    def failed(self, uid: str, reason: str, now_s: float) -> None:
        pod = self._pods.get(uid)
        if pod is not None:
            self._pods[uid] = replace(pod, failure=reason, retry_s=now_s + RETRY_S)

    def forgotten(self, uid: str) -> None:
        del self._pods[uid]
        self._since.pop(uid, None)
        self._states.pop(uid, None)

    def reporting(self, captured: Collection[str]) -> None:
        """A report is on its way: from now on the control plane may believe it."""
        for uid in captured:
            if uid in self._pods:
                self._pods[uid] = replace(self._pods[uid], withdrawn_s=None)

    def reported(self, captured: Collection[str], now_s: float) -> None:
        """The control plane accepted this as the whole truth."""
        for uid, pod in self._pods.items():
            if uid not in captured and pod.capture is not None and pod.withdrawn_s is None:
                self._pods[uid] = replace(pod, withdrawn_s=now_s)

    # What to do now

    def ready(self, now_s: float) -> Iterator[Step]:
        """The next step of every pod that has one."""
        node = self.node
        for pod in list(self._pods.values()):
            left = plan.steps(pod, node, now_s)
            if left:
                yield left[0]

    def kernel_steps(self, now_s: float) -> list[Step]:
        kinds = (plan.CapturePod, plan.Release, plan.Forget)
        return [step for step in self.ready(now_s) if isinstance(step, kinds)]

    def tunnel_step(
        self, tunnel: int, now_s: float
    ) -> plan.AddToTunnel | plan.DeleteFromTunnel | None:
        """Lock-step: a ztunnel gets one at a time; who leaves goes first."""
        kinds = (plan.AddToTunnel, plan.DeleteFromTunnel)
        found = [
            step for step in self.ready(now_s) if isinstance(step, kinds) and step.tunnel == tunnel
        ]
        found.sort(key=lambda step: isinstance(step, plan.AddToTunnel))
        return found[0] if found else None

    def report(self) -> frozenset[str]:
        return frozenset(uid for uid, pod in self._pods.items() if plan.reportable(pod))

    def next_deadline_s(self, now_s: float) -> float | None:
        """When time alone will make another step ready."""
        deadlines = [*self._drains(now_s), *self._retries(now_s)]
        return min(deadlines, default=None)

    def _drains(self, now_s: float) -> Iterable[float]:
        for step in self.ready(now_s):
            if isinstance(step, plan.AwaitDrain) and step.until_s is not None:
                yield step.until_s

    def _retries(self, now_s: float) -> Iterable[float]:
        for pod in self._pods.values():
            if pod.retry_s is not None and pod.retry_s > now_s:
                yield pod.retry_s

    # What to show

    def state(self, uid: str) -> tuple[State, str] | None:
        pod = self._pods.get(uid)
        return None if pod is None else plan.state(pod, self.node)

    def observe(self, now: datetime) -> list[tuple[str, State, str]]:
        """Every state that changed since the last call."""
        changed = []
        for uid in self._pods:
            current = plan.state(self._pods[uid], self.node)
            if self._states.get(uid) != current:
                self._states[uid], self._since[uid] = current, now
                changed.append((uid, *current))
        return changed

    def since(self, uid: str) -> datetime | None:
        return self._since.get(uid)


def _retried(pod: Pod) -> Pod:
    return replace(pod, retry_s=None, failure=None)
