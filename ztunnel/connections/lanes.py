"""The common part of all connections of one pod to one destination, found once per state.

`route` decides; its answers are kept here until the state changes, unless chance had a part in
them. No I/O, and nothing about a single connection.
"""

from __future__ import annotations

from typing import Final

from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.connections.correlate import Fields, forwarded_host, request_fields
from ztunnel.connections.pool import PoolKey, Slot
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.dice import Dice
from ztunnel.mesh.roles import Asked, NextHop
from ztunnel.mesh.route import Decision, Refuse, ToTunnel, Wait, route
from ztunnel.mesh.state import State
from ztunnel.telemetry.parties import Memo

# Destinations remembered for one pod, at some 500 bytes each. Beyond this, all are found anew.
LANES_MAX: Final = 1024


class Lane:
    """One decision, and everything that follows from it for each connection."""

    __slots__ = ("_memo", "_peer", "decision", "fields", "host", "identity", "key", "slot")

    def __init__(self, pod_uid: str, source: Workload, decision: Decision) -> None:
        self.decision = decision
        self.identity: SpiffeId = source.identity
        self.key: PoolKey | None = None  # None if the decision is not a tunnel
        self.slot: Slot | None = None  # None until a connection asks the pool for one
        self.fields: Fields = ()
        self.host = forwarded_host(decision.service)
        self._peer: SpiffeId | None = None
        self._memo = Memo()
        if isinstance(decision, ToTunnel):
            self.key = PoolKey(
                pod_uid, self.identity, decision.expected, decision.dial, self.workload
            )
            self.fields = request_fields(source)

    @property
    def workload(self) -> str:
        """The uid of the workload that is to answer; empty if none is known."""
        decision = self.decision
        if isinstance(decision, Refuse | Wait) or decision.workload is None:
            return ""
        return decision.workload.uid

    def memo(self, peer: SpiffeId | None) -> Memo:
        """The memo of connections that `peer` has let in."""
        if peer is not self._peer and peer != self._peer:
            self._peer = peer
            self._memo = Memo()
        return self._memo


class Lanes:
    """The lanes of one pod."""

    __slots__ = ("_by_decision", "_by_destination", "_generation", "_pod_uid")

    def __init__(self, pod_uid: str) -> None:
        self._pod_uid = pod_uid
        self._generation = -1
        self._by_destination: dict[Asked, Lane] = {}
        self._by_decision: dict[tuple[str, NextHop], Lane] = {}

    def __len__(self) -> int:
        return len(self._by_destination) + len(self._by_decision)

    def find(
        self, state: State, source: Workload, destination: Asked, hint: Hint, dice: Dice
    ) -> Lane:
        """The lane of a connection to `destination`; arguments as in `route`."""
        self._learn(state)
        if hint is not Hint.NONE:
            return self._lane(source, route(state, source, destination, dice, hint))
        known = self._by_destination.get(destination)
        if known is not None:
            return known
        rolls = dice.rolls
        lane = self._lane(source, route(state, source, destination, dice))
        if dice.rolls == rolls and not isinstance(lane.decision, Wait):
            if len(self._by_destination) >= LANES_MAX:
                self._by_destination.clear()
            self._by_destination[destination] = lane
        return lane

    def elsewhere(
        self,
        state: State,
        source: Workload,
        destination: Asked,
        dice: Dice,
        lost: frozenset[str],
    ) -> Lane:
        """A lane to another workload than those, if there is one; else to one of them."""
        self._learn(state)
        return self._lane(source, route(state, source, destination, dice, lost=lost))

    def _learn(self, state: State) -> None:
        """Forget the decisions of an older state."""
        if self._generation != state.generation:
            self._generation = state.generation
            self._by_destination.clear()
            self._by_decision.clear()

    def _lane(self, source: Workload, decision: Decision) -> Lane:
        if not isinstance(decision, ToTunnel):
            return Lane(self._pod_uid, source, decision)
        question = (decision.authority, decision.dial)
        lane = self._by_decision.get(question)
        if lane is None or lane.decision != decision:
            if len(self._by_decision) >= LANES_MAX:
                self._by_decision.clear()
            lane = self._by_decision[question] = Lane(self._pod_uid, source, decision)
        return lane
