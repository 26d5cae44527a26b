"""The facts about every pod, and the events that change them; never acts, never waits.

The shell (enroller.py, kernel_track.py) reports each event and asks for the steps that may be taken
now. Every step is safe by itself, in any order with those of other pods: of each pod only the first
of the steps that are left is given out.

An event replaces a pod's facts as a whole, and all changes pass through `_change`. So everything
that is derived from the facts follows them: lookups (index.py), the next step of each pod
(agenda.py) and the states shown to people (history.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from agent.enrol import plan
from agent.enrol.agenda import Agenda, ZtunnelStep
from agent.enrol.history import History
from agent.enrol.index import PodIndex
from agent.enrol.plan import Capture, Handover, NodeFacts, PodFacts, PodState, Step
from control.model.address import Address

RETRY_S = 5.0  # a ztunnel that refuses a pod is asked again at the pace of Istio's agent


class Book:
    def __init__(self, drain_s: float, linger_s: float = 0.0) -> None:
        self._drain_s = drain_s
        self._linger_s = linger_s
        self._all_hear = True
        self._pods: dict[str, PodFacts] = {}
        self._ztunnels: list[int] = []  # by their start, the newest last
        self._started: dict[int, int] = {}
        self._leaving: set[int] = set()
        self._index = PodIndex()
        self._agenda = Agenda()
        self._history = History()

    @property
    def node(self) -> NodeFacts:
        notice_s = plan.NOTICE_S if self._all_hear else plan.NOTICE_BY_POD_S
        return NodeFacts(tuple(self._ztunnels), self._drain_s, self._linger_s, notice_s)

    def pods(self) -> Mapping[str, PodFacts]:
        return self._pods

    def living_in(self, netns: int) -> str | None:
        """The uid of the pod in this namespace."""
        return self._index.tenant(netns)

    def _change(self, pod: PodFacts) -> None:
        known = self._pods.get(pod.uid)
        if known != pod:
            self._pods[pod.uid] = pod
            self._index.changed(known, pod)
            self._touched([pod.uid])

    def _touched(self, uids: Collection[str]) -> None:
        """Plan and show these pods anew: their facts, or the node's, have changed."""
        self._agenda.changed(uids)
        self._history.touched(uids)

    # Events of a pod's namespace

    def registered(
        self, uid: str, netns: int, addresses: tuple[Address, ...], enrolled: bool | None
    ) -> None:
        """A pod was registered, perhaps again: in the same namespace only addresses change."""
        known = self._pods.get(uid)
        if known is None:
            self._change(PodFacts(uid, netns, addresses, enrolled))
        else:
            fresh = known if known.netns == netns else _anew(known)
            self._change(replace(fresh, netns=netns, addresses=addresses, enrolled=enrolled))

    def gone(self, uid: str) -> None:
        """The pod was deleted, or its namespace has vanished."""
        pod = self._pods.get(uid)
        if pod is not None and pod.netns is not None:
            self._change(replace(_unfailed(pod), netns=None))

    def starts(self, uid: str, callers: int) -> None:
        """So many callers more, or fewer, wait before they let the pod run: one may give up while
        another one has asked again."""
        pod = self._pods.get(uid)
        if pod is not None:
            self._change(replace(pod, waits=max(0, pod.waits + callers)))

    def forgotten(self, uid: str) -> None:
        """Nothing is left of the pod."""
        self._index.changed(self._pods.pop(uid), None)
        self._agenda.changed([uid])
        self._history.forgotten(uid)

    # Events of the control plane

    def wanted(
        self,
        uid: str,
        enrolled: bool | None,
        addresses: tuple[Address, ...] | None,
        now_s: float = 0.0,
    ) -> None:
        """Its intent for the pod. `addresses` None: keep those we know."""
        pod = self._pods[uid]
        if enrolled is not pod.enrolled or (addresses and addresses != pod.addresses):
            kept = addresses or pod.addresses
            # One that left before its capture is listened in already.
            listens = pod.capture is None and any(each.ready for each in pod.handovers)
            fresh = replace(_unannounced(pod), offered_s=now_s if listens else None)
            self._change(replace(fresh, enrolled=enrolled, addresses=kept))

    def allowed_direct(self, uid: str, direct: bool) -> None:
        """The pod's connections inside the node may leave out the tunnel, or may not."""
        pod = self._pods[uid]
        if pod.direct is not direct:
            self._change(replace(_unfailed(pod), direct=direct))

    def all_hear(self, is_so: bool) -> None:
        """All replicas of the control plane hear each report, or perhaps one of them alone."""
        if is_so is not self._all_hear:
            self._all_hear = is_so
            self._touched(self._pods)

    def reporting(self, captured: AbstractSet[str]) -> None:
        """A report is on its way: from now on the control plane may believe it, in what it says
        and in what it does not say any more. Its answer may be lost."""
        for uid in self._index.unheard & captured:
            self._change(replace(self._pods[uid], hbone=True, withdrawn_s=None))
        for uid in self._index.announced - captured:
            self._change(replace(self._pods[uid], announced_s=None))

    def reported(self, captured: AbstractSet[str], now_s: float) -> None:
        """The control plane accepted this as the whole truth."""
        for uid in self._index.believed - captured:
            unheard = replace(self._pods[uid], hbone=False, announced_s=None)
            self._change(replace(unheard, withdrawn_s=now_s))
        for uid in self._index.announcing & captured:
            self._change(replace(self._pods[uid], announced_s=now_s))

    # Events of a ztunnel

    def ztunnel_joined(self, ztunnel: int, started: int = 0, first: Iterable[str] = ()) -> None:
        """`started` orders them: one that is being replaced may connect last, after a restart of
        ours, and the one that replaces it would wait for its pods for ever. `first`: the pods that
        it gets first."""
        self._started[ztunnel] = started
        self._ztunnels.append(ztunnel)
        self._rank()
        for pod in list(self._pods.values()):
            self._change(_unfailed(pod))  # the failure was another ztunnel's
        self._touched(self._pods)
        self._agenda.hurry(uid for uid in first if uid in self._pods)

    def ztunnel_leaving(self, ztunnel: int) -> None:
        """It is going to end: every other one goes before it, also one that started earlier."""
        self._leaving.add(ztunnel)
        self._rank()
        self._touched(self._pods)

    def _rank(self) -> None:
        def rank(ztunnel: int) -> tuple[bool, int]:
            return ztunnel not in self._leaving, self._started[ztunnel]

        self._ztunnels.sort(key=rank)

    def ztunnel_left(self, ztunnel: int) -> None:
        self._ztunnels.remove(ztunnel)
        self._leaving.discard(ztunnel)
        del self._started[ztunnel]
        for uid in list(self._pods):
            self._set_handover(uid, ztunnel, None)
        self._touched(self._pods)

    def adding(self, step: plan.AddToZtunnel) -> None:
        """The request is about to be sent: from now on the ztunnel may hold the namespace."""
        self._set_handover(step.uid, step.ztunnel, Handover(step.ztunnel, step.netns, ready=False))

    def untold(self, ztunnel: int, now_s: float) -> list[str]:
        """Pods that this ztunnel was not told of, and may have from before a restart of ours: those
        that are leaving, or linger, and those that it has refused."""
        return [
            uid
            for uid, pod in self._pods.items()
            if pod.netns is not None
            and (pod.capture.netns == pod.netns if pod.capture else self._lingers(pod, now_s))
            and all(each.ztunnel != ztunnel for each in pod.handovers)
        ]

    def _lingers(self, pod: PodFacts, now_s: float) -> bool:
        return pod.released_s is not None and now_s < pod.released_s + self._linger_s

    def keeping(self, uid: str, ztunnel: int) -> None:
        """The ztunnel is about to hear that it keeps the pod, if it has it."""
        pod = self._pods.get(uid)
        if pod is not None and pod.netns is not None:
            self._set_handover(uid, ztunnel, Handover(ztunnel, pod.netns, ready=False))

    def added(self, step: plan.AddToZtunnel, now_s: float = 0.0) -> None:
        pod = _unfailed(self._pods[step.uid])
        offered_s = now_s if pod.offered_s is None and pod.capture is None else pod.offered_s
        self._change(replace(pod, offered_s=offered_s))
        self._set_handover(step.uid, step.ztunnel, Handover(step.ztunnel, step.netns))

    def removed(self, step: plan.DeleteFromZtunnel) -> None:
        self._set_handover(step.uid, step.ztunnel, None)

    def handover_lost(self, uid: str, ztunnel: int) -> None:
        """The ztunnel has acknowledged the pod, yet its listeners are not to be had: ask again."""
        handover = Handover(ztunnel, self._pods[uid].netns or 0, ready=False)
        self._set_handover(uid, ztunnel, handover)

    def _set_handover(self, uid: str, ztunnel: int, handover: Handover | None) -> None:
        pod = self._pods[uid]
        others = tuple(each for each in pod.handovers if each.ztunnel != ztunnel)
        self._change(replace(pod, handovers=others if handover is None else (*others, handover)))

    # Events of the kernel half

    def adopted(self, uid: str, capture: Capture) -> None:
        """A capture was in force before we started."""
        known = self._pods.get(uid, PodFacts(uid, None))
        self._change(replace(known, capture=capture, direct=capture.direct, hbone=True))

    def released_before(self, uid: str, released_s: float) -> None:
        """A capture ended before we started; the control plane may not have heard."""
        self._change(replace(self._pods[uid], released_s=released_s, hbone=True))

    def captured(self, step: plan.CapturePod) -> None:
        pod = self._pods[step.uid]
        capture = Capture(step.netns, step.addresses, step.ztunnel, step.direct)
        self._change(replace(_unannounced(pod), capture=capture))

    def held(self, uid: str, until_s: float) -> None:
        """No connection of the pod goes direct before then."""
        self._change(replace(self._pods[uid], held_until_s=until_s))

    def damaged(self, uid: str) -> None:
        """The kernel has lost a part of its capture: hand it over and capture it again."""
        pod = self._pods[uid]
        if pod.capture is not None:
            capture = replace(pod.capture, ztunnel=None)
            handovers = tuple(replace(each, ready=False) for each in pod.handovers)
            self._change(replace(_unfailed(pod), capture=capture, handovers=handovers))

    def direct_set(self, step: plan.SetDirect) -> None:
        pod = self._pods[step.uid]
        assert pod.capture is not None
        self._change(replace(_unfailed(pod), capture=replace(pod.capture, direct=step.direct)))

    def released(self, uid: str, now_s: float) -> None:
        pod = _unfailed(self._pods[uid])
        # They listen on, and have to hand their listeners over once more before a next capture.
        kept = tuple(replace(each, ready=False) for each in pod.handovers)
        self._change(replace(pod, capture=None, released_s=now_s, handovers=kept))

    def failed(self, uid: str, reason: str, now_s: float) -> None:
        """A step of the pod failed, at a ztunnel or in the kernel: it is tried again later."""
        pod = self._pods.get(uid)
        if pod is not None:
            fresh = replace(pod, announced_s=None)
            self._change(replace(fresh, failure=reason, retry_s=now_s + RETRY_S))

    # Steps to take now

    def _fresh_agenda(self, now_s: float) -> Agenda:
        self._agenda.refresh(self._pods, self.node, now_s)
        return self._agenda

    def ready(self, now_s: float) -> Iterator[Step]:
        """The next step of every pod that has one."""
        return self._fresh_agenda(now_s).steps()

    def kernel_steps(self, now_s: float) -> list[Step]:
        return self._fresh_agenda(now_s).kernel_steps()

    def ztunnel_step(
        self, ztunnel: int, now_s: float, but: Collection[str] = ()
    ) -> ZtunnelStep | None:
        """One step for a ztunnel, of a pod that is none of `but`; pods that leave go first."""
        return self._fresh_agenda(now_s).ztunnel_step(ztunnel, but)

    def next_deadline_s(self, now_s: float) -> float | None:
        """The time at which, with no event, another step becomes ready; None: never."""
        return self._fresh_agenda(now_s).next_due_s()

    # Facts to tell others

    def report(self) -> Mapping[str, tuple[Address, ...]]:
        """The pods that peers may reach by HBONE, with their addresses: the whole truth for the
        control plane. The same object until it changes."""
        return self._index.report

    def state(self, uid: str) -> tuple[PodState, str] | None:
        """(state, reason) of a pod; None: it is unknown."""
        pod = self._pods.get(uid)
        return None if pod is None else plan.state(pod, self.node)

    def observe(self, now: datetime) -> list[tuple[str, PodState, str]]:
        """(uid, state, reason) of every state that has changed since the last call."""
        return self._history.observe(self._pods, self.node, now)

    def since(self, uid: str) -> datetime | None:
        """The moment at which the pod's state last changed."""
        return self._history.since(uid)


def _unfailed(pod: PodFacts) -> PodFacts:
    """The pod without its last failure: something has changed, so it is tried again at once."""
    return replace(pod, retry_s=None, failure=None)


def _unannounced(pod: PodFacts) -> PodFacts:
    """The same, of which peers would have to hear before its next capture."""
    return replace(_unfailed(pod), offered_s=None, announced_s=None)


def _anew(pod: PodFacts) -> PodFacts:
    """The pod in another namespace, where nothing was ever open."""
    return replace(_unannounced(pod), held_until_s=0.0)
