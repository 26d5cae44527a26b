"""Keeps the facts about every pod and turns what happened into new facts; never acts, never waits.

The shell (enroller.py) tells it each event and asks which steps may be taken now. Every step it
names is safe by itself, in any order with the others: per pod only the first of what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from agent.enrol import plan
from agent.enrol.agenda import Agenda, TunnelStep
from agent.enrol.plan import Capture, Node, Offer, Pod, State, Step
from control.model.address import Address

RETRY_S = 5.0  # a ztunnel that refuses a pod is asked again at the pace of Istio's agent


class Book:
    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._pods: dict[str, Pod] = {}
        self._tunnels: list[int] = []
        self._agenda = Agenda()
        self._uids: dict[int, str] = {}  # namespace → who lives in it
        self._captured: set[str] = set()
        self._withdrawn: set[str] = set()
        self._reportable: set[str] = set()
        self._report: frozenset[str] | None = frozenset()  # of _reportable; None: changed since
        self._unseen: dict[str, None] = {}  # may have changed state since `observe`
        self._since: dict[str, datetime] = {}  # uid → when its state last changed
        self._states: dict[str, tuple[State, str]] = {}

    @property
    def node(self) -> Node:
        return Node(tuple(self._tunnels), self._drain_s)

    def pods(self) -> Mapping[str, Pod]:
        return self._pods

    def living_in(self, netns: int) -> str | None:
        """The uid whose namespace this is."""
        return self._uids.get(netns)

    # One door for every change, so that whatever is derived from the facts follows them.

    def _set(self, pod: Pod) -> None:
        known = self._pods.get(pod.uid)
        if known == pod:
            return
        self._pods[pod.uid] = pod
        if known is not None and known.netns != pod.netns:
            self._moved_out(known)
        if pod.netns is not None:
            self._uids[pod.netns] = pod.uid
        _keep(self._captured, pod.uid, pod.capture is not None)
        _keep(self._withdrawn, pod.uid, pod.withdrawn_s is not None)
        if _keep(self._reportable, pod.uid, plan.reportable(pod)):
            self._report = None
        self._touched([pod.uid])

    def _remove(self, uid: str) -> None:
        self._moved_out(self._pods.pop(uid))
        self._captured.discard(uid)
        self._withdrawn.discard(uid)
        if _keep(self._reportable, uid, False):
            self._report = None
        self._agenda.changed([uid])
        self._unseen.pop(uid, None)
        self._since.pop(uid, None)
        self._states.pop(uid, None)

    def _moved_out(self, pod: Pod) -> None:
        if pod.netns is not None and self._uids.get(pod.netns) == pod.uid:
            del self._uids[pod.netns]

    def _touched(self, uids: Collection[str]) -> None:
        self._agenda.changed(uids)
        self._unseen.update(dict.fromkeys(uids))

    # What happened

    def registered(
        self, uid: str, netns: int, addresses: tuple[Address, ...], enrolled: bool | None
    ) -> None:
        """Also for a uid that is known: the same namespace changes nothing but the addresses."""
        known = self._pods.get(uid)
        if known is None:
            self._set(Pod(uid, netns, addresses, enrolled))
        else:
            fresh = known if known.netns == netns else _retried(known)
            self._set(replace(fresh, netns=netns, addresses=addresses, enrolled=enrolled))

    def adopted(self, uid: str, capture: Capture) -> None:
        """The kernel has it in force since before we started."""
        known = self._pods.get(uid, Pod(uid, None))
        self._set(replace(known, capture=capture, direct=capture.direct))

    def allowed_direct(self, uid: str, direct: bool) -> None:
        """Whether its connections may leave out the tunnel, inside the node."""
        pod = self._pods[uid]
        if pod.direct is not direct:
            self._set(replace(_retried(pod), direct=direct))

    def wanted(
        self, uid: str, enrolled: bool | None, addresses: tuple[Address, ...] | None
    ) -> None:
        """The control plane's word. None for the addresses: keep what we know."""
        pod = self._pods[uid]
        if enrolled is not pod.enrolled or (addresses and addresses != pod.addresses):
            kept = addresses or pod.addresses
            self._set(replace(_retried(pod), enrolled=enrolled, addresses=kept))

    def gone(self, uid: str) -> None:
        pod = self._pods.get(uid)
        if pod is not None and pod.netns is not None:
            self._set(replace(_retried(pod), netns=None))

    def tunnel_joined(self, tunnel: int) -> None:
        self._tunnels.append(tunnel)
        for pod in list(self._pods.values()):
            self._set(_retried(pod))  # the failure was another ztunnel's
        self._touched(self._pods)

    def tunnel_left(self, tunnel: int) -> None:
        self._tunnels.remove(tunnel)
        for uid in list(self._pods):
            self._set_offer(uid, tunnel, None)
        self._touched(self._pods)

    def adding(self, step: plan.AddToTunnel) -> None:
        """Before it is sent: from now on the ztunnel may hold the namespace."""
        self._set_offer(step.uid, step.tunnel, Offer(step.tunnel, step.netns, ready=False))

    def added(self, step: plan.AddToTunnel) -> None:
        self._set(_retried(self._pods[step.uid]))
        self._set_offer(step.uid, step.tunnel, Offer(step.tunnel, step.netns))

    def removed(self, step: plan.DeleteFromTunnel) -> None:
        self._set_offer(step.uid, step.tunnel, None)

    def _set_offer(self, uid: str, tunnel: int, offer: Offer | None) -> None:
        pod = self._pods[uid]
        others = tuple(each for each in pod.offers if each.tunnel != tunnel)
        self._set(replace(pod, offers=others if offer is None else (*others, offer)))

    def captured(self, step: plan.CapturePod) -> None:
        pod = self._pods[step.uid]
        capture = Capture(step.netns, step.addresses, step.tunnel, step.direct)
        fresh = pod.capture is None
        withdrawn_s = None if fresh else pod.withdrawn_s
        self._set(replace(_retried(pod), capture=capture, withdrawn_s=withdrawn_s))

    def direct_set(self, step: plan.SetDirect) -> None:
        pod = self._pods[step.uid]
        assert pod.capture is not None
        self._set(replace(_retried(pod), capture=replace(pod.capture, direct=step.direct)))

    def offer_lost(self, uid: str, tunnel: int) -> None:
        """The ztunnel acknowledged the pod, yet its listeners cannot be had: ask again."""
        offer = Offer(tunnel, self._pods[uid].netns or 0, ready=False)
        self._set_offer(uid, tunnel, offer)

    def released(self, uid: str) -> None:
        self._set(replace(_retried(self._pods[uid]), capture=None, withdrawn_s=None))

    def failed(self, uid: str, reason: str, now_s: float) -> None:
        pod = self._pods.get(uid)
        if pod is not None:
            self._set(replace(pod, failure=reason, retry_s=now_s + RETRY_S))

    def forgotten(self, uid: str) -> None:
        self._remove(uid)

    def reporting(self, captured: Collection[str]) -> None:
        """A report is on its way: from now on the control plane may believe it."""
        for uid in self._withdrawn.intersection(captured):
            self._set(replace(self._pods[uid], withdrawn_s=None))

    def reported(self, captured: Collection[str], now_s: float) -> None:
        """The control plane accepted this as the whole truth."""
        for uid in self._captured.difference(captured, self._withdrawn):
            self._set(replace(self._pods[uid], withdrawn_s=now_s))

    # What to do now

    def _fresh_agenda(self, now_s: float) -> Agenda:
        self._agenda.refresh(self._pods, self.node, now_s)
        return self._agenda

    def ready(self, now_s: float) -> Iterator[Step]:
        """The next step of every pod that has one."""
        return self._fresh_agenda(now_s).steps()

    def kernel_steps(self, now_s: float) -> list[Step]:
        return self._fresh_agenda(now_s).kernel_steps()

    def tunnel_step(self, tunnel: int, now_s: float) -> TunnelStep | None:
        """Lock-step: a ztunnel gets one at a time; who leaves goes first."""
        return self._fresh_agenda(now_s).tunnel_step(tunnel)

    def report(self) -> frozenset[str]:
        if self._report is None:
            self._report = frozenset(self._reportable)
        return self._report

    def next_deadline_s(self, now_s: float) -> float | None:
        """When time alone will make another step ready."""
        return self._fresh_agenda(now_s).next_due_s()

    # What to show

    def state(self, uid: str) -> tuple[State, str] | None:
        pod = self._pods.get(uid)
        return None if pod is None else plan.state(pod, self.node)

    def observe(self, now: datetime) -> list[tuple[str, State, str]]:
        """Every state that changed since the last call."""
        changed, node = [], self.node
        for uid in self._unseen:
            current = plan.state(self._pods[uid], node)
            if self._states.get(uid) != current:
                self._states[uid], self._since[uid] = current, now
                changed.append((uid, *current))
        self._unseen.clear()
        return changed

    def since(self, uid: str) -> datetime | None:
        return self._since.get(uid)


def _keep(members: set[str], uid: str, wanted: bool) -> bool:
    """Put it in or out; True when that changed anything."""
    if (uid in members) is wanted:
        return False
    (members.add if wanted else members.discard)(uid)
    return True


def _retried(pod: Pod) -> Pod:
    return replace(pod, retry_s=None, failure=None)
