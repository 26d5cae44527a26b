"""Decides what to do next for each pod, in which order; does none of it.

One pod is one set of facts (`Pod`), its uid the only key: an address or a name may already belong
to somebody else. `steps` gives everything that is left to do for it, in the one safe order. Whoever
executes takes the first step, tells the facts what came of it and asks again, so that a failure, a
restart or a change of mind between two steps needs no code of its own.

The order is the safety property:

    enrol      ztunnel has the pod and listens in it → capture → report (peers may now use HBONE)
    unenrol    no more direct connections → report → drain, so that peers stop using HBONE →
               release → ztunnel drops the pod
    delete     release → ztunnel drops the pod, whose namespace may then go → forget
    replace    (same uid, other namespace) release the old one → enrol

A captured pod stays captured whatever dies. Only three things end a capture: the namespace is gone,
another namespace took over the uid, or the control plane said "not enrolled" and its peers know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from control.model.address import Address


@dataclass(frozen=True, slots=True)
class Capture:
    """What the kernel has in force. `tunnel`: whose listeners it hands to; None: of a past run."""

    netns: int
    addresses: tuple[Address, ...]
    tunnel: int | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A ztunnel was given the pod. `ready`: it has acknowledged it and listens in this namespace.

    Not ready is asked, refused or unanswered: it may hold the namespace all the same.
    """

    tunnel: int
    netns: int
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Pod:
    """The facts about one uid. A namespace is named by its cookie, which is never used twice."""

    uid: str
    netns: int | None  # None: deleted, or the namespace is gone
    addresses: tuple[Address, ...] = ()
    enrolled: bool | None = None  # what the control plane wants; None: it has not said
    direct: bool = False  # may the kernel carry its connections inside the node?
    capture: Capture | None = None
    offers: tuple[Offer, ...] = ()
    withdrawn_s: float | None = None  # when the control plane accepted that it is not captured
    retry_s: float | None = None  # a step failed; not again before then
    failure: str | None = None  # its reason


@dataclass(frozen=True, slots=True)
class Node:
    """The facts about everything else."""

    tunnels: tuple[int, ...]  # connected ztunnels, the newest last
    drain_s: float

    @property
    def newest(self) -> int | None:
        return self.tunnels[-1] if self.tunnels else None


@dataclass(frozen=True, slots=True)
class AddToTunnel:
    uid: str
    tunnel: int
    netns: int


@dataclass(frozen=True, slots=True)
class CapturePod:
    """Capture, or bring what is in force up to date: new listeners, new addresses."""

    uid: str
    tunnel: int
    netns: int
    addresses: tuple[Address, ...]
    direct: bool = False


@dataclass(frozen=True, slots=True)
class SetDirect:
    """Let a captured pod's connections go direct, or no more of them."""

    uid: str
    direct: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the control plane whether this pod is captured."""

    uid: str
    captured: bool


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Peers learn from the control plane, not from us: give them time to stop using HBONE."""

    uid: str
    until_s: float | None  # None: the report before it has not been accepted yet


@dataclass(frozen=True, slots=True)
class Release:
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteFromTunnel:
    uid: str
    tunnel: int


@dataclass(frozen=True, slots=True)
class Forget:
    uid: str


Step = (
    AddToTunnel | CapturePod | SetDirect | Report | AwaitDrain | Release | DeleteFromTunnel | Forget
)


def steps(pod: Pod, node: Node, now_s: float) -> tuple[Step, ...]:
    """Everything left to do for this pod, as far as it can be seen from here."""
    if pod.retry_s is not None and now_s < pod.retry_s:
        return ()
    if pod.netns is None:
        return (*_release(pod), *_withdraw(pod, node), Forget(pod.uid))
    if pod.enrolled is False:
        return _unenrol(pod, node, now_s)
    if pod.enrolled is None and pod.capture is None:
        return _withdraw(pod, node)
    return _enrol(pod, pod.netns, node)


def _enrol(pod: Pod, netns: int, node: Node) -> tuple[Step, ...]:
    found: list[Step] = []
    capture = pod.capture
    if capture is not None and capture.netns != netns:
        found += _release(pod)
        capture = None
    found += _set_direct(pod, capture, pod.direct)
    tunnel = node.newest
    # The newest ztunnel replaces an old namespace when it gets the new one; others must drop it.
    found += [
        DeleteFromTunnel(pod.uid, offer.tunnel)
        for offer in pod.offers
        if offer.netns != netns and offer.tunnel in node.tunnels and offer.tunnel != tunnel
    ]
    if tunnel is None or not pod.addresses:
        return tuple(found)
    wanted = Capture(netns, pod.addresses, tunnel, pod.direct)
    found += _serve(pod, capture, wanted, tunnel)
    if pod.withdrawn_s is not None or capture is None:
        found.append(Report(pod.uid, captured=True))
    return tuple(found)


def _serve(pod: Pod, held: Capture | None, wanted: Capture, tunnel: int) -> Iterator[Step]:
    """This ztunnel listens in the pod, then the kernel hands to it."""
    if Offer(tunnel, wanted.netns) not in pod.offers:
        yield AddToTunnel(pod.uid, tunnel, wanted.netns)
    if held is None or replace(held, direct=wanted.direct) != wanted:
        yield CapturePod(pod.uid, tunnel, wanted.netns, wanted.addresses, wanted.direct)


def _set_direct(pod: Pod, held: Capture | None, direct: bool) -> Iterator[Step]:
    if held is not None and held.direct is not direct:
        yield SetDirect(pod.uid, direct)


def _unenrol(pod: Pod, node: Node, now_s: float) -> tuple[Step, ...]:
    found: list[Step] = []
    drain: list[Step] = []
    if pod.capture is not None:
        found += _set_direct(pod, pod.capture, False)
        if pod.capture.netns == pod.netns:
            if pod.withdrawn_s is None:
                drain = [Report(pod.uid, captured=False), AwaitDrain(pod.uid, None)]
            elif now_s < pod.withdrawn_s + node.drain_s:
                drain = [AwaitDrain(pod.uid, pod.withdrawn_s + node.drain_s)]
            # A ztunnel that connects while a pod drains serves it to the end; one that will not
            # have it must not keep the pod captured.
            tunnel = node.newest
            if drain and tunnel is not None and pod.failure is None:
                left = replace(pod.capture, tunnel=tunnel, direct=False)
                found += _serve(pod, pod.capture, left, tunnel)
            found += drain
        found += _release(pod)
    return (*found, *_withdraw(pod, node))


def _release(pod: Pod) -> tuple[Step, ...]:
    return (Release(pod.uid),) if pod.capture is not None else ()


def _withdraw(pod: Pod, node: Node) -> tuple[Step, ...]:
    return tuple(
        DeleteFromTunnel(pod.uid, offer.tunnel)
        for offer in pod.offers
        if offer.tunnel in node.tunnels
    )


def due_s(pod: Pod, node: Node, now_s: float) -> float | None:
    """When time alone, with nothing happening, will change what `steps` says. None: never."""
    if pod.retry_s is not None and now_s < pod.retry_s:
        return pod.retry_s
    for step in steps(pod, node, now_s):
        if isinstance(step, AwaitDrain):
            return step.until_s
    return None


class State(StrEnum):
    CAPTURED = "captured"
    PENDING = "pending"
    NOT_ENROLLED = "not_enrolled"
    RELEASING = "releasing"
    FAILED = "failed"


def state(pod: Pod, node: Node) -> tuple[State, str]:
    """What to tell people (and the CNI plugin), with a stable reason."""
    if pod.netns is None:
        return State.RELEASING, "namespace_gone"
    if pod.capture is not None:
        if pod.capture.netns != pod.netns:
            return State.RELEASING, "namespace_replaced"
        if pod.enrolled is False:
            return State.RELEASING, "draining" if pod.withdrawn_s is not None else "reporting"
        alive = pod.capture.tunnel in node.tunnels
        return State.CAPTURED, pod.failure or ("" if alive else "no_ztunnel")
    if pod.enrolled is False:
        return State.NOT_ENROLLED, ""
    if pod.failure is not None:
        return State.FAILED, pod.failure
    if pod.enrolled is None:
        return State.PENDING, "no_intent"
    if not pod.addresses:
        return State.PENDING, "no_address"
    return State.PENDING, "enrolling" if node.tunnels else "no_ztunnel"


def reportable(pod: Pod) -> bool:
    """Is this pod one that peers may reach by HBONE?"""
    return pod.capture is not None and pod.capture.netns == pod.netns and pod.enrolled is not False
