"""Connections that the kernel carries, as a worker sees them: two ordinary records for each.

The agent tells of them; here they get their parties, their counters, their log lines, and the same
question about policy that a tunnelled connection gets, at their start and after every change. What
is denied is cut through the agent and stays on the books until the kernel says that it is over.
They live in the kernel: a drain neither waits for them nor ends them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from control.kit.log import event
from control.model.policy import Connection, Deny
from control.model.workload import Workload
from ztunnel.connections.engine import Engine
from ztunnel.connections.inbound import tell_would_deny
from ztunnel.connections.pod import OpenConnection
from ztunnel.direct.pairs import Pair, Pairs, Told
from ztunnel.mesh.authorize import Admit, Refusal, recheck
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Flag, Reporter
from ztunnel.transport.ends import RelayEnd

log = logging.getLogger("ztunnel.direct")

# More than an agent lists (16,384 and what was under way), as nobody decides about one beyond. Two
# records of about 1 KiB each.
FLOWS_MAX: Final = 32_768
# Flows that ended here before the kernel said so: their last word is no news.
ENDED_MAX: Final = 1024
ERROR_CHARS_MAX: Final = 80
# A new connection to the agent tells all open flows within a moment; what it does not name is over.
CONFIRM_S: Final = 10.0

NEVER_ESTABLISHED: Final = "failed"
_ERRORS: Final = {NEVER_ESTABLISHED: "connect failed", "aborted": RelayEnd.APP_RESET.value}

Cut = Callable[[int], None]


class Flow:
    """One connection of the kernel's, with a record for each of its pods."""

    __slots__ = ("_flows", "condemned", "moved", "permitted", "sides", "told")

    def __init__(self, flows: Flows, told: Told, pair: Pair) -> None:
        self._flows = flows
        self.told = told
        self.condemned: RelayEnd | None = None
        self.permitted: Connection | None = None
        self.moved = (0, 0)  # client → server, server → client
        self.sides = (
            Side(self, pair.source.outbound, flows.outcome(told, pair, Reporter.SOURCE)),
            Side(self, pair.destination.inbound, flows.outcome(told, pair, Reporter.DESTINATION)),
        )

    def decide(self, local: Workload | None) -> None:
        """May it stay? Asked at its start and after each change of policy."""
        state = self._flows.engine.state
        if not state.synced or local is None or self.condemned is not None:
            return
        if self.permitted is not None:
            if isinstance(recheck(state, local, self.permitted), Deny):
                self.condemn(RelayEnd.POLICY)
            return
        answer = self._flows.ask(self.told)
        if isinstance(answer, Refusal):
            self.condemn(RelayEnd.POLICY)
        elif answer is not None:
            self.admitted(answer)

    def admitted(self, answer: Admit) -> None:
        self.permitted = answer.permit.connection
        for side in self.sides:
            side.outcome.parties.policy = answer.permit.policy
        tell_would_deny(self._flows.engine, answer)

    def condemn(self, why: RelayEnd) -> None:
        """Ended by the agent, soon; the kernel's last word then has its bytes."""
        self.condemned = why
        self._flows.cut(self, why)

    def leave(self) -> None:
        """Off the books, without a word."""
        for side in self.sides:
            side.book.pop(side, None)

    def close(self, flag: Flag, error: str) -> None:
        self.leave()
        for side in self.sides:
            side.outcome.closed(self._flows.engine.counters, flag, error)


class Side:
    """One pod's record of a flow; an `OpenConnection`."""

    __slots__ = ("book", "flow", "outcome")

    def __init__(self, flow: Flow, book: dict[OpenConnection, None], outcome: Outcome) -> None:
        self.flow = flow
        self.book = book
        self.outcome = outcome

    def abort(self, reason: RelayEnd) -> None:
        self.flow._flows.abort(self.flow, reason)

    def on_bug(self) -> None:
        """Fails closed."""
        self.flow.condemn(RelayEnd.INTERNAL_ERROR)

    def recheck(self, workload: Workload | None) -> None:
        self.flow.decide(workload)


class Flows:
    """Of one worker."""

    def __init__(self, engine: Engine, cut: Cut, flows_max: int = FLOWS_MAX) -> None:
        self._flows_max = flows_max
        self.engine = engine
        self._cut = cut
        self._pairs = Pairs(engine)
        self._open: dict[int, Flow] = {}
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._unconfirmed: set[int] = set()
        self._confirm = engine.reactor.countdown(CONFIRM_S, Flows._forget_unconfirmed)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, line: dict[str, Any]) -> None:
        """A line of the agent's. One flow that makes no sense costs that flow."""
        actions: dict[object, Callable[[Any], None]] = {
            "opened": self._opened,
            "moved": self._moved,
            "closed": self._closed,
        }
        action = actions.get(line.get("kind"))
        flows = line.get("flows")
        if action is None or not isinstance(flows, list):
            return
        for each in flows:
            try:
                action(each)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
                self.engine.counters.count("direct_flows_unreadable")
                event(log, logging.ERROR, "direct.unreadable", error=repr(exc))

    def _opened(self, value: dict[str, Any]) -> None:
        told = Told.parse(value)
        self._unconfirmed.discard(told.id)
        known = self._open.get(told.id)
        if known is not None:  # told again
            if known.condemned is not None:
                self.cut(known, known.condemned)
            return
        if len(self._open) >= self._flows_max:
            self.engine.counters.count("direct_flows_over_limit")
            return
        flow = self._make(told)
        if flow is not None:
            self._open[told.id] = flow
            for side in flow.sides:
                # Not `engine.enter`: it costs no descriptor, and a drain does not wait for it.
                side.book[side] = None
            self.engine.reactor.serve(flow.sides[1], flow.decide, self._local(told))

    def _moved(self, value: list[int]) -> None:
        flow = self._open.get(int(value[0]))
        if flow is not None:
            flow.moved = (int(value[1]), int(value[2]))

    def _closed(self, value: dict[str, Any]) -> None:
        number = int(value["id"])
        if self._ended.pop(number, self) is None:
            return
        moved = (int(value["sent"]), int(value["received"]))
        measured = (int(value.get("srtt_us", 0)), int(value.get("retransmits", 0)))
        error = str(value.get("error") or "")[:ERROR_CHARS_MAX]
        flow = self._open.pop(number, None)
        if flow is None:
            told = Told.parse(value)
            flow = self._make(told, opened=error != NEVER_ESTABLISHED)
            if flow is None:
                return
            answer = self.ask(told)
            if isinstance(answer, Admit):  # it is over: a no would have nothing to end
                flow.admitted(answer)
        flow.moved = moved
        for side in flow.sides:
            side.outcome.parties.measured = measured
        if flow.condemned is None:
            failed = error == NEVER_ESTABLISHED
            flow.close(Flag.CONNECT if failed else Flag.NONE, _ERRORS.get(error, error))
        else:
            flag = Flag.DENY if flow.condemned is RelayEnd.POLICY else Flag.NONE
            flow.close(flag, flow.condemned.value)

    def _make(self, told: Told, *, opened: bool = True) -> Flow | None:
        pair = self._pairs.of(told)
        if pair is None:
            self.engine.counters.count("direct_flows_unknown_pod")
            return None
        flow = Flow(self, told, pair)
        for side in flow.sides if opened else ():
            side.outcome.opened(self.engine.counters, lambda: flow.moved)
        return flow

    def _local(self, told: Told) -> Workload | None:
        pair = self._pairs.of(told)
        return None if pair is None else pair.server

    def ask(self, told: Told) -> Admit | Refusal | None:
        """None: who asks, or is asked, is being deleted."""
        pair = self._pairs.of(told)
        return None if pair is None else pair.ask(self.engine.state, told)

    def outcome(self, told: Told, pair: Pair, reporter: Reporter) -> Outcome:
        return self.engine.outcome(pair.parties(told, reporter), told.age_s)

    def on_agent(self) -> None:
        """A new connection to the agent: what ended in between nobody will tell."""
        self._unconfirmed = set(self._open)
        self._confirm.start(self)

    def _forget_unconfirmed(self) -> None:
        for number in self._unconfirmed:
            flow = self._open.pop(number, None)
            if flow is not None:
                self.engine.counters.count("direct_flows_lost")
                flow.close(Flag.NONE, "the kernel's last word is missing")
        self._unconfirmed.clear()

    def on_bug(self) -> None:
        """The agent's next connection tries again."""

    # -- ends ------------------------------------------------------------------------------------

    def cut(self, flow: Flow, why: RelayEnd) -> None:
        if why is RelayEnd.POLICY:
            self.engine.counters.refuse("policy_changed")
        self.engine.counters.count("direct_flows_cut")
        event(log, logging.INFO, "direct.cut", flow=flow.told.id, reason=why.value)
        self._cut(flow.told.id)

    def abort(self, flow: Flow, reason: RelayEnd) -> None:
        """Its pod is gone, or we are."""
        if self._open.pop(flow.told.id, None) is None:
            return
        if reason is RelayEnd.DRAINED:
            for side in flow.sides:
                side.outcome.sync()
            flow.leave()
            return
        if len(self._ended) >= ENDED_MAX:
            self._ended.popitem(last=False)
        self._ended[flow.told.id] = None
        self.cut(flow, reason)
        flow.close(Flag.NONE, reason.value)
