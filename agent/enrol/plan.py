"""Decides the next steps for each pod and their order; takes none of them.

A pod is one set of facts (`PodFacts`). Its uid is its only key: an address or a name may already
belong to another pod. `steps` gives all that is left to do for it, in the one safe order. The shell
takes the first step, records the outcome in the facts and asks again; so a failure, a restart or a
change of mind between two steps needs no code of its own.

The order is the safety property:

    start      ztunnel has the pod and listens in it → capture → report (peers may now use HBONE)
    enrol      ztunnel has the pod and listens in it → report → capture, once peers know: the pod
               runs already, and under STRICT one that still dials it in the clear is refused
    unenrol    no more direct connections → release → report → drain, so that peers stop using
               HBONE, and linger, for what is open by the ztunnel → ztunnel drops the pod
    delete     release → ztunnel drops the pod, whose namespace may then go → forget
    replace    (same uid, other namespace) release the old one → enrol

A captured pod stays captured, whichever process dies. Three things alone end a capture: its
namespace is gone, another namespace took over the uid, or the control plane said "not enrolled".
Whoever joins or leaves while it runs is reached both ways in between, by HBONE and in the clear: it
was in the clear a moment ago, or will be, and no peer is refused for what it cannot know yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from control.model.address import Address

# A report is answered when the news is on its way to every node; the last of 500 has it 0.2 s
# later. Plaintext of whoever is slower is refused under STRICT, until it knows.
NOTICE_S: Final = 0.3
# Where it is not known who the control plane's replicas are, one alone is told, and the others read
# it on the pod: 2 s later.
NOTICE_BY_POD_S: Final = 4.0
# An intent has come from the control plane, so it will hear a report soon, or is away. A report may
# be kept waiting for 4 s, and is given up after 5.
UNHEARD_S_MAX: Final = 6.0


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture in force. `ztunnel`: the one that gets the connections; None: one of a past run."""

    netns: int
    addresses: tuple[Address, ...]
    ztunnel: int | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """A pod that was handed over to a ztunnel. `ready`: it listens in this namespace.

    While it is not ready (asked, refused, unanswered) the ztunnel may hold the namespace anyway.
    """

    ztunnel: int
    netns: int
    ready: bool = True


@dataclass(frozen=True, slots=True)
class PodFacts:
    """The facts about one uid. `netns` is a namespace's cookie, which is never used twice."""

    uid: str
    netns: int | None  # None: deleted, or the namespace is gone
    addresses: tuple[Address, ...] = ()
    enrolled: bool | None = None  # the intent; None: the control plane has not sent it
    direct: bool = False  # the kernel may carry its connections inside the node
    held_until_s: float = 0.0  # no direct connection before then: see `agent.datapath.conntrack`
    capture: Capture | None = None
    handovers: tuple[Handover, ...] = ()
    hbone: bool = False  # the control plane may tell peers to use it
    withdrawn_s: float | None = None  # the control plane accepted then that they may not
    released_s: float | None = None  # its capture ended then; None: there was none
    waits: int = 0  # callers that its start waits for; see `starting`
    offered_s: float | None = None  # a ztunnel listened in it then, before any capture
    announced_s: float | None = None  # the control plane accepted then that peers may use HBONE
    retry_s: float | None = None  # a step failed; no other is taken before then
    failure: str | None = None  # its reason

    @property
    def starting(self) -> bool:
        """True as long as nothing of it runs, and so nobody uses it."""
        return self.waits > 0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The facts that all pods of the node share."""

    ztunnels: tuple[int, ...]  # connected ztunnels, the newest last
    drain_s: float
    linger_s: float = 0.0
    notice_s: float = NOTICE_S  # for peers of a pod that runs, before its capture

    @property
    def newest(self) -> int | None:
        return self.ztunnels[-1] if self.ztunnels else None


@dataclass(frozen=True, slots=True)
class AddToZtunnel:
    uid: str
    ztunnel: int
    netns: int


@dataclass(frozen=True, slots=True)
class CapturePod:
    """Capture the pod, or update its capture: new listeners, new addresses."""

    uid: str
    ztunnel: int
    netns: int
    addresses: tuple[Address, ...]
    direct: bool = False


@dataclass(frozen=True, slots=True)
class SetDirect:
    """Allow or forbid direct connections of a captured pod."""

    uid: str
    direct: bool


@dataclass(frozen=True, slots=True)
class ReportPod:
    """Report to the control plane that the pod is captured, or is not."""

    uid: str
    captured: bool


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Wait for peers to stop using HBONE, which they learn from the control plane, not from us, and
    for connections by the ztunnel to end."""

    uid: str
    until_s: float | None  # None: the report before it has not been accepted yet


@dataclass(frozen=True, slots=True)
class AwaitPeers:
    """Wait for peers to use HBONE: they learn it from the control plane."""

    uid: str
    until_s: float | None  # None: no ztunnel listens yet


@dataclass(frozen=True, slots=True)
class Release:
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteFromZtunnel:
    uid: str
    ztunnel: int


@dataclass(frozen=True, slots=True)
class Forget:
    uid: str


Step = (
    AddToZtunnel
    | CapturePod
    | SetDirect
    | ReportPod
    | AwaitDrain
    | AwaitPeers
    | Release
    | DeleteFromZtunnel
    | Forget
)


def steps(pod: PodFacts, node: NodeFacts, now_s: float) -> tuple[Step, ...]:
    """All that is left to do for this pod, as far as it can be seen now."""
    if pod.retry_s is not None and now_s < pod.retry_s:
        return ()
    if pod.netns is None:
        return (*_release(pod), *_withdraw(pod, node), Forget(pod.uid))
    if pod.enrolled is False:
        return _unenrol(pod, node, now_s)
    if pod.enrolled is None and pod.capture is None:
        return _leave(pod, node, now_s)
    return _enrol(pod, pod.netns, node, now_s)


def _enrol(pod: PodFacts, netns: int, node: NodeFacts, now_s: float) -> tuple[Step, ...]:
    found: list[Step] = []
    capture = pod.capture
    direct = pod.direct and now_s >= pod.held_until_s
    if capture is not None and capture.netns != netns:
        found += _release(pod)
        capture = None
    found += _set_direct(pod, capture, direct)
    ztunnel = node.newest
    # The newest ztunnel replaces the old namespace when it gets the new one; others must drop it.
    found += [
        DeleteFromZtunnel(pod.uid, each.ztunnel)
        for each in pod.handovers
        if each.netns != netns and each.ztunnel in node.ztunnels and each.ztunnel != ztunnel
    ]
    if ztunnel is None or not pod.addresses:
        return tuple(found)
    wanted = Capture(netns, pod.addresses, ztunnel, direct)
    found += _listen(pod, netns, ztunnel)
    if capture is None:
        found += _announce(pod, node, now_s)
    found += _hand_to(capture, wanted, ztunnel, pod.uid)
    if not pod.hbone or capture is None:
        found.append(ReportPod(pod.uid, captured=True))
    return tuple(found)


def _listen(pod: PodFacts, netns: int, ztunnel: int) -> Iterator[Step]:
    """Have this ztunnel listen in the pod."""
    if Handover(ztunnel, netns) not in pod.handovers:
        yield AddToZtunnel(pod.uid, ztunnel, netns)


def _announce(pod: PodFacts, node: NodeFacts, now_s: float) -> Iterator[Step]:
    """Let peers of a pod that runs know before they have to. A control plane that does not answer
    holds its capture up for a moment only."""
    if not is_announced(pod):
        return
    if pod.announced_s is not None:
        until_s: float | None = pod.announced_s + node.notice_s
    else:
        until_s = None if pod.offered_s is None else pod.offered_s + UNHEARD_S_MAX
    if until_s is None or now_s < until_s:
        if pod.announced_s is None:
            yield ReportPod(pod.uid, captured=True)
        yield AwaitPeers(pod.uid, until_s)


def is_announced(pod: PodFacts) -> bool:
    """True for a pod of which peers hear before its capture: it runs, and nothing went wrong."""
    return not pod.starting and pod.failure is None


def _hand_to(held: Capture | None, wanted: Capture, ztunnel: int, uid: str) -> Iterator[Step]:
    """Hand the pod's connections to the ztunnel that listens in it."""
    if held is None or replace(held, direct=wanted.direct) != wanted:
        yield CapturePod(uid, ztunnel, wanted.netns, wanted.addresses, wanted.direct)


def is_handover(held: Capture, step: CapturePod) -> bool:
    """True if nothing but the ztunnel differs. A capture of a past run, or one that has lost a
    part, has none, and is made anew."""
    asked = Capture(step.netns, step.addresses, step.ztunnel, step.direct)
    return held.ztunnel is not None and replace(held, ztunnel=step.ztunnel) == asked


def _set_direct(pod: PodFacts, held: Capture | None, direct: bool) -> Iterator[Step]:
    if held is not None and held.direct is not direct:
        yield SetDirect(pod.uid, direct)


def _unenrol(pod: PodFacts, node: NodeFacts, now_s: float) -> tuple[Step, ...]:
    if pod.capture is None:
        return _leave(pod, node, now_s)
    return (*_set_direct(pod, pod.capture, False), *_release(pod), *_withdraw(pod, node))


def _leave(pod: PodFacts, node: NodeFacts, now_s: float) -> tuple[Step, ...]:
    """After the release."""
    if not _is_kept(pod, node):
        return _withdraw(pod, node)
    if pod.hbone:
        told = ReportPod(pod.uid, captured=False), AwaitDrain(pod.uid, None)
        return (*told, *_withdraw(pod, node))
    until_s = max(
        now_s if pod.released_s is None else pod.released_s + node.linger_s,
        now_s if pod.withdrawn_s is None else pod.withdrawn_s + node.drain_s,
    )
    if now_s < until_s:
        return (AwaitDrain(pod.uid, until_s), *_withdraw(pod, node))
    return _withdraw(pod, node)


def _is_kept(pod: PodFacts, node: NodeFacts) -> bool:
    """True while a ztunnel keeps a pod for peers that do not know yet, and for the connections that
    it has; new ones of those that know go past it."""
    return any(each.netns == pod.netns and each.ztunnel in node.ztunnels for each in pod.handovers)


def _release(pod: PodFacts) -> tuple[Step, ...]:
    return (Release(pod.uid),) if pod.capture is not None else ()


def _withdraw(pod: PodFacts, node: NodeFacts) -> tuple[Step, ...]:
    return tuple(
        DeleteFromZtunnel(pod.uid, handover.ztunnel)
        for handover in pod.handovers
        if handover.ztunnel in node.ztunnels
    )


def due_s(pod: PodFacts, left: Iterable[Step], now_s: float) -> float | None:
    """The time at which the steps that are `left` change although nothing happens; None: never."""
    if pod.retry_s is not None and now_s < pod.retry_s:
        return pod.retry_s
    for step in left:
        if isinstance(step, AwaitDrain | AwaitPeers):
            return step.until_s
    is_held = pod.direct and pod.capture is not None and now_s < pod.held_until_s
    return pod.held_until_s if is_held else None


class PodState(StrEnum):
    CAPTURED = "captured"
    PENDING = "pending"
    NOT_ENROLLED = "not_enrolled"
    RELEASING = "releasing"
    FAILED = "failed"


def state(pod: PodFacts, node: NodeFacts) -> tuple[PodState, str]:
    """State for people and the CNI plugin, with a stable reason."""
    if pod.netns is None:
        return PodState.RELEASING, "namespace_gone"
    if pod.capture is not None:
        if pod.capture.netns != pod.netns:
            return PodState.RELEASING, "namespace_replaced"
        if pod.enrolled is False:
            return PodState.RELEASING, pod.failure or "releasing"
        alive = pod.capture.ztunnel in node.ztunnels
        return PodState.CAPTURED, pod.failure or ("" if alive else "no_ztunnel")
    if pod.enrolled is False:
        kept = any(each.ztunnel in node.ztunnels for each in pod.handovers)
        return PodState.NOT_ENROLLED, "lingering" if kept else ""
    if pod.failure is not None:
        return PodState.FAILED, pod.failure
    if pod.enrolled is None:
        return PodState.PENDING, "no_intent"
    if not pod.addresses:
        return PodState.PENDING, "no_address"
    if not node.ztunnels:
        return PodState.PENDING, "no_ztunnel"
    return PodState.PENDING, "enrolling" if pod.offered_s is None else "announcing"


def reportable(pod: PodFacts) -> tuple[Address, ...] | None:
    """The addresses at which peers may reach the pod by HBONE; None: they may not."""
    if pod.netns is None or pod.enrolled is False:
        return None
    if pod.capture is not None:
        return pod.capture.addresses if pod.capture.netns == pod.netns else None
    listens = any(each.ready and each.netns == pod.netns for each in pod.handovers)
    return pod.addresses if pod.enrolled and listens and is_announced(pod) else None
