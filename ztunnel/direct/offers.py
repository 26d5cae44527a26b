"""What a worker tells the kernel half it may do by itself: verdicts, and shares of services.

Learned from connections that went through the tunnel: an admitted one is looked at (`direct.py`
decides), and the answer is remembered so that the next one costs a look into a table. A verdict is
signed with the generation of the state it was made from. Shares follow the mesh: they are computed
again after a change, some each turn, and nothing is signed anew before that is done, because a
service that got a waypoint has to be forgotten before its pods are allowed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from control.model.address import Address, Endpoint
from control.model.workload import Service, Workload
from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import Pod
from ztunnel.direct.verdicts import Place, Share, local_share, verdict
from ztunnel.mesh.route import ToTunnel

# Pairs and services looked at lately; beyond, they are looked at again.
RECENT_MAX: Final = 8192
# Shares that the kernel half knows of; the least recently used one is taken back for a new one.
LEARNED_MAX: Final = 4096
# A pair still seen in the tunnel after so long is told again: the kernel's tables evict as well.
AGAIN_S: Final = 3.0
# Each at some microseconds, or some tens when it changed.
REFRESHED_PER_TURN_MAX: Final = 32

Send = Callable[[dict[str, Any]], None]
_Key = tuple[str, Address, int]  # source pod, VIP, port
_Question = tuple[str, str, int] | _Key  # the first: source pod, destination workload, port


class _Learned:
    """A share as it was told, and what it was made from."""

    __slots__ = ("edition", "service", "share", "source")

    def __init__(
        self,
        share: Share,
        source: Workload,
        service: Service,
        edition: object,
    ) -> None:
        self.share: Share | None = share  # None: has to be told again
        self.source = source
        self.service = service
        self.edition: object | None = edition


class Offers:
    """The shares and verdicts that one worker offers; the `Observer` of its pods."""

    def __init__(
        self,
        engine: Engine,
        place: Place,
        send: Send,
        *,
        recent_max: int = RECENT_MAX,
        learned_max: int = LEARNED_MAX,
    ) -> None:
        self._recent_max = recent_max
        self._learned_max = learned_max
        self._engine = engine
        self._place = place
        self._send = send
        self._generation: int | None = None  # None: nothing may be signed
        self._next: int | None = None  # in force once every share is up to date
        self._recent: dict[_Question, float] = {}  # until when there is no need to look
        self._learned: OrderedDict[_Key, _Learned] = OrderedDict()
        self._waiting: dict[_Key, None] = {}  # shares to look at again
        self._once_more = False  # something changed while those were being looked at
        self._by_name: dict[tuple[str, str, str], Pod] | None = None

    @property
    def learned(self) -> int:
        return len(self._learned)

    # -- connections -----------------------------------------------------------------------------

    def admitted(self, pod: Pod, source: Workload, asked: Endpoint, decision: ToTunnel) -> None:
        """A connection of `pod` to `asked` was let in at the other end."""
        workload, service = decision.workload, decision.service
        if workload is not None and workload.node == self._place.node:
            port = decision.target.port
            if self._is_due((pod.uid, workload.uid, port)):
                self._offer(pod, workload, port)
        if service is not None and self._is_due((pod.uid, asked.address, asked.port)):
            self._learn(pod, source, service, asked)

    def _is_due(self, question: _Question) -> bool:
        """Whatever could turn a yes into a no comes with a new generation, and that starts over."""
        now_s = self._engine.reactor.now_s
        if now_s < self._recent.get(question, 0.0) or self._generation is None:
            return False
        if len(self._recent) >= self._recent_max:
            self._recent.clear()
        self._recent[question] = now_s + AGAIN_S
        return True

    def _offer(self, pod: Pod, workload: Workload, port: int) -> None:
        destination = self._served(workload)
        if destination is None:
            return
        if not verdict(self._engine.state, self._place, pod, destination, port):
            return
        self._engine.counters.count("direct_verdicts")
        self._send(
            {
                "kind": "verdict",
                "generation": self._generation,
                "source": pod.uid,
                "destination": destination.uid,
                "port": port,
            }
        )

    def _served(self, workload: Workload) -> Pod | None:
        """Our pod that is this workload."""
        if self._by_name is None:
            self._by_name = {
                (pod.namespace, pod.name, pod.service_account): pod
                for pod in self._engine.pods.values()
            }
        pod = self._by_name.get((workload.namespace, workload.name, workload.service_account))
        known = None if pod is None else pod.workload(self._engine.state)
        return pod if known is not None and known.uid == workload.uid else None

    # -- shares of services ----------------------------------------------------------------------

    def _learn(self, pod: Pod, source: Workload, service: Service, asked: Endpoint) -> None:
        key = (pod.uid, asked.address, asked.port)
        state = self._engine.state
        share = local_share(state, self._served, source, service, asked)
        if share is None:
            self._take_back(key)
            return
        if key not in self._learned and len(self._learned) >= self._learned_max:
            self._take_back(next(iter(self._learned)))
        self._learned[key] = _Learned(share, source, service, state.edition(service.key))
        self._learned.move_to_end(key)
        self._tell(key, share)

    def _tell(self, key: _Key, share: Share | None) -> None:
        uid, address, port = key
        slots = () if share is None else share.slots
        self._engine.counters.count("direct_services" if slots else "direct_services_forgotten")
        self._send(
            {
                "kind": "service",
                "source": uid,
                "vip": str(Endpoint(address, port)).rpartition(":")[0].strip("[]"),
                "port": port,
                "total": 0 if share is None else share.total,
                "slots": [
                    {
                        "weight": each.weight,
                        "destination": each.destination,
                        "address": str(each.target).rpartition(":")[0].strip("[]"),
                        "port": each.target.port,
                    }
                    for each in slots
                ],
            }
        )

    def _take_back(self, key: _Key) -> None:
        if self._learned.pop(key, None) is not None:
            self._waiting.pop(key, None)
            self._tell(key, None)

    # -- changes ---------------------------------------------------------------------------------

    def on_addresses(self) -> None:
        """Workloads or services changed."""
        if self._waiting:
            self._once_more = True
        elif self._learned:
            self._waiting = dict.fromkeys(self._learned)
            self._engine.reactor.again(self)

    def on_pods(self) -> None:
        """A pod came or went."""
        self._by_name = None
        self._recent.clear()
        for each in self._learned.values():
            each.edition = None
        self.on_addresses()

    def on_agent(self) -> None:
        """A new connection to the agent, which may know nothing of what was said before."""
        self._recent.clear()
        for each in self._learned.values():
            each.edition = each.share = None
        self.on_addresses()

    def on_generation(self, generation: int) -> None:
        """Whatever is evaluated from now on is made from the resources of this generation."""
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
        asked = Endpoint(key[1], key[2])
        service = (
            None
            if source is None
            else state.service_at(source.network, asked.address, source.namespace)
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
        """Fails closed: what cannot be kept up to date is not offered any more."""
        self._generation = self._next = None
        self._waiting.clear()
        self._once_more = False
        for key in tuple(self._learned):
            self._take_back(key)
