"""Connections that wait for the control plane's word about an address, where those come on demand.

The worker asks the supervisor once for each pod and name, however many connections wait. An answer
wakes exactly those that have all their names. What may be decided then, `route` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from control.model.address import Address
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.mesh.names import peer_name, rests_on
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason

ANSWER_S: Final = 2.0  # for all names of one connection; also for a control plane that restarts
WAITING_MAX: Final = 256  # connections of one pod; more are refused at once

# Pod, names, and whether nobody waits for them.
Ask = Callable[[str, list[str], bool], None]


class Lookup(Protocol):
    """A connection that may wait."""

    def on_known(self) -> None:
        """All its names are known. It may wait again, for others, until the same deadline."""

    def on_unknown(self, reason: Reason) -> None: ...

    def on_bug(self) -> None: ...


class _Waiting:
    __slots__ = ("item", "names", "pod")

    def __init__(self, pod: Pod, item: Lookup) -> None:
        self.pod = pod
        self.item = item
        self.names: set[str] = set()

    def on_bug(self) -> None:
        self.item.on_bug()


class AddressLookups:
    """All that wait in a worker."""

    def __init__(self, reactor: Reactor, ask: Ask) -> None:
        self._reactor = reactor
        self._ask = ask
        self._waiting: dict[Lookup, _Waiting] = {}
        self._by_name: dict[str, dict[_Waiting, None]] = {}
        self._of_pods: dict[str, int] = {}
        self._late: Final = reactor.countdown(ANSWER_S, self._give_up)

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, pod: Pod, item: Lookup, names: Iterable[str]) -> bool:
        """Ask for the names, and call the item once they are known. False: too many wait."""
        waiting = self._waiting.get(item)
        if waiting is None:
            count = self._of_pods.get(pod.uid, 0)
            if count >= WAITING_MAX:
                return False
            self._of_pods[pod.uid] = count + 1
            waiting = self._waiting[item] = _Waiting(pod, item)
            self._late.start(waiting)
        fresh = []
        for name in names:
            waiting.names.add(name)
            others = self._by_name.setdefault(name, {})
            if all(each.pod is not pod for each in others):
                fresh.append(name)
            others[waiting] = None
        if fresh:
            self._ask(pod.uid, fresh, False)
        return True

    def want(self, state: State, pod: Pod, network: str, address: Address) -> None:
        """Ask for the name of a peer, which nobody waits for."""
        name = peer_name(state, network, address)
        if name is not None and name not in self._by_name:
            self._ask(pod.uid, [name], True)

    def told(self, names: Iterable[str]) -> None:
        """These names are known now."""
        for name in names:
            for each in list(self._by_name.pop(name, ())):
                each.names.discard(name)
                if not each.names and self._waiting.get(each.item) is each:
                    self._wake(each)

    def told_all(self) -> None:
        """Every name is: addresses come unasked from now on."""
        self.told(list(self._by_name))

    def _wake(self, waiting: _Waiting) -> None:
        self._reactor.serve(waiting, waiting.item.on_known)
        if not waiting.names:
            self.withdraw(waiting.item)

    def failed(self, pod_uid: str, names: Iterable[str], reason: Reason) -> None:
        """Nobody will answer these names to this pod."""
        for name in names:
            for each in list(self._by_name.get(name, ())):
                if each.pod.uid == pod_uid:
                    self._end(each, reason)

    def withdraw(self, item: Lookup) -> None:
        """It waits no more; safe to repeat."""
        waiting = self._waiting.pop(item, None)
        if waiting is None:
            return
        self._late.stop(waiting)
        left = self._of_pods.pop(waiting.pod.uid) - 1
        if left:
            self._of_pods[waiting.pod.uid] = left
        for name in waiting.names:
            others = self._by_name.get(name)
            if others is not None:
                others.pop(waiting, None)
                if not others:
                    del self._by_name[name]

    def _give_up(self, waiting: _Waiting) -> None:
        self._end(waiting, Reason.ADDRESS_TIMEOUT)

    def _end(self, waiting: _Waiting, reason: Reason) -> None:
        self.withdraw(waiting.item)
        self._reactor.serve(waiting, waiting.item.on_unknown, reason)


def names_in_use(state: State, pod: Pod) -> set[str]:
    """Names that open connections of a pod rest on, and those of addresses that it dialled since
    the last call."""
    asked: set[Asked] = {
        each.outcome.parties.original
        for each in pod.outbound
        if each.outcome.parties.original is not None
    }
    asked |= pod.dialled
    pod.dialled = set()
    source = pod.workload(state)
    if source is None:
        return set()
    return {name for each in asked for name in rests_on(state, source, each)}
