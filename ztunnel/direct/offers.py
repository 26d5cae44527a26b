"""A worker's offers to the kernel half: verdicts, and shares of services.

They are learned from connections that went through the tunnel. An admitted one is examined
(`verdicts` decides), and the answer is remembered, so that the next one costs one look into a
table. A verdict carries the generation of the state that it was made from. Shares follow the mesh:
after a change they are computed again, some each turn, and no verdict is signed before that is
done: a service that got a waypoint must be forgotten before its pods are allowed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from control.model.address import Address, Endpoint
from control.model.workload import Service, Workload
from control.wire.direct import SERVICES_MAX, Cut, ServiceShare, Verdict
from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import Pod
from ztunnel.direct.verdicts import Place, Share, local_share, verdict
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import ToTunnel

# Pairs and services examined lately; beyond this they are examined again.
RECENT_MAX: Final = 8192
# A pair still seen in the tunnel after this is offered again: the kernel's tables evict too.
AGAIN_S: Final = 3.0
# Each takes some microseconds, or tens of them if it changed.
REFRESHED_PER_TURN_MAX: Final = 32

Tell = Callable[[Verdict | ServiceShare | Cut], None]  # a line for the agent
_Key = tuple[str, Address, int]  # source pod, VIP, port
_Question = tuple[str, str, int] | _Key  # the first: source pod, destination workload, port


class _Learned:
    """A share as it was offered, and the values it was computed from."""

    __slots__ = ("edition", "service", "share", "source")

    def __init__(
        self,
        share: Share,
        source: Workload,
        service: Service,
        edition: object,
    ) -> None:
        self.share: Share | None = share  # None: offer it again
        self.source = source
        self.service = service
        self.edition: object | None = edition


class Offers:
    """The shares and verdicts that one worker offers; the `Observer` of its pods."""

    def __init__(
        self,
        engine: Engine,
        place: Place,
        tell: Tell,
        *,
        recent_max: int = RECENT_MAX,
        learned_max: int = SERVICES_MAX,
    ) -> None:
        self._recent_max = recent_max
        self._learned_max = learned_max
        self._engine = engine
        self._place = place
        self._tell_agent = tell
        self._generation: int | None = None  # None: nothing may be signed
        self._next: int | None = None  # takes over once every share is up to date
        self._recent: dict[_Question, float] = {}  # no need to look again before this time
        self._learned: OrderedDict[_Key, _Learned] = OrderedDict()
        self._waiting: dict[_Key, None] = {}  # shares to compute again
        self._once_more = False  # the mesh changed while those were computed
        self._by_name: dict[tuple[str, str, str], Pod] | None = None

    @property
    def learned(self) -> int:
        return len(self._learned)

    # -- connections -----------------------------------------------------------------------------

    def admitted(self, pod: Pod, source: Workload, asked: Asked, decision: ToTunnel) -> None:
        """Learn from a connection of `pod` to `asked` that the other end has let in."""
        workload, service = decision.workload, decision.service
        if workload is not None and workload.node == self._place.node:
            port = decision.target.port
            if self._is_due((pod.uid, workload.uid, port)):
                self._offer(pod, workload, port)
        if service is not None and self._is_due((pod.uid, asked.address, asked.port)):
            self._learn(pod, source, service, asked)

    def _is_due(self, question: _Question) -> bool:
        """True if nobody asked lately. A change that turns a yes into a no brings a new generation,
        which clears the memory."""
        now_s = self._engine.reactor.now_s
        if now_s < self._recent.get(question, 0.0) or self._generation is None:
            return False
        if len(self._recent) >= self._recent_max:
            self._recent.clear()
        self._recent[question] = now_s + AGAIN_S
        return True

    def _offer(self, pod: Pod, workload: Workload, port: int) -> None:
        destination, generation = self._served(workload), self._generation
        if destination is None or generation is None:
            return
        if not verdict(self._engine.state, self._place, pod, destination, port):
            return
        self._engine.counters.count("direct_verdicts")
        self._tell_agent(Verdict(generation, pod.uid, destination.uid, port))

    def _served(self, workload: Workload) -> Pod | None:
        """Pod of ours that is this workload."""
        if self._by_name is None:
            self._by_name = {
                (pod.namespace, pod.name, pod.service_account): pod
                for pod in self._engine.pods.values()
            }
        pod = self._by_name.get((workload.namespace, workload.name, workload.service_account))
        known = None if pod is None else pod.workload(self._engine.state)
        return pod if known is not None and known.uid == workload.uid else None

    # -- shares of services ----------------------------------------------------------------------

    def _learn(self, pod: Pod, source: Workload, service: Service, asked: Asked) -> None:
        key = (pod.uid, asked.address, asked.port)
        state = self._engine.state
        share = local_share(state, self._served, source, service, asked)
        if share is None:
            self._take_back(key)
            return
        if key not in self._learned and len(self._learned) >= self._learned_max:
            self._take_back(next(iter(self._learned)))  # the least recently used one
        self._learned[key] = _Learned(share, source, service, state.edition(service.key))
        self._learned.move_to_end(key)
        self._tell(key, share)

    def _tell(self, key: _Key, share: Share | None) -> None:
        told = ServiceShare(*key) if share is None else ServiceShare(*key, share.total, share.slots)
        forgotten = not told.slots
        self._engine.counters.count("direct_services_forgotten" if forgotten else "direct_services")
        self._tell_agent(told)

    def _take_back(self, key: _Key) -> None:
        if self._learned.pop(key, None) is not None:
            self._waiting.pop(key, None)
            self._tell(key, None)

    # -- changes ---------------------------------------------------------------------------------

    def on_addresses(self) -> None:
        """Compute every share again: workloads or services have changed."""
        if self._waiting:
            self._once_more = True
        elif self._learned:
            self._waiting = dict.fromkeys(self._learned)
            self._engine.reactor.again(self)

    def on_pods(self) -> None:
        """Forget what was learned about pods: one came or went."""
        self._by_name = None
        self._recent.clear()
        for each in self._learned.values():
            each.edition = None
        self.on_addresses()

    def on_agent(self) -> None:
        """Offer everything again: this agent may know nothing of what was said before."""
        self._recent.clear()
        for each in self._learned.values():
            each.edition = each.share = None
        self.on_addresses()

    def on_generation(self, generation: int) -> None:
        """Sign with this generation: from now on everything is computed from its resources."""
        self._recent.clear()
        self._generation, self._next = None, generation
        self._adopt()

    def _adopt(self) -> None:
        if self._next is not None and not self._waiting and not self._once_more:
            self._generation, self._next = self._next, None

    def on_again(self) -> None:
        for _ in range(min(REFRESHED_PER_TURN_MAX, len(self._waiting))):
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._refresh(key)
        if self._waiting:
            self._engine.reactor.again(self)
        elif self._once_more:
            self._once_more = False
            self.on_addresses()
        self._adopt()

    def _refresh(self, key: _Key) -> None:
        state = self._engine.state
        learned = self._learned[key]
        pod = self._engine.pods.get(key[0])
        source = None if pod is None else pod.workload(state)
        asked = Asked(Endpoint(key[1], key[2]))
        service = (
            None
            if source is None
            else state.service_at(source.network, asked.address, source.namespace, asked.port)
        )
        if source is None or service is None:
            self._take_back(key)
            return
        edition = state.edition(service.key)
        if source is learned.source and service is learned.service and edition is learned.edition:
            return
        share = local_share(state, self._served, source, service, asked)
        if share is None:
            self._take_back(key)
            return
        before = learned.share
        self._learned[key] = _Learned(share, source, service, edition)
        if share != before:
            self._tell(key, share)

    def on_bug(self) -> None:
        """Take everything back: what cannot be kept up to date is no longer offered."""
        self._generation = self._next = None
        self._waiting.clear()
        self._once_more = False
        for key in tuple(self._learned):
            self._take_back(key)
