"""Connections that the kernel carries, as a worker sees them: two ordinary records for each.

The agent reports them. Here they get their parties, counters and log lines, and the same question
about policy as a tunnelled connection, at the start and after every change. One that is denied is
cut through the agent, and stays on the books until the kernel reports its end. They live in the
kernel: a drain neither waits for them nor ends them.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from control.kit.errors import WireError
from control.kit.log import event
from control.model.policy import Connection, Deny
from control.model.workload import Workload
from control.wire.direct import FlowLine, FlowNews
from control.wire.direct_flows import OpenedFlow, read_closed, read_moved, read_opened
from ztunnel.connections.engine import Engine
from ztunnel.connections.inbound import tell_would_deny
from ztunnel.connections.pod import Book
from ztunnel.direct.pairs import PodPair, PodPairs
from ztunnel.mesh.authorize import Admit, Refusal, recheck
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.outcome import Outcome
from ztunnel.telemetry.parties import Reporter
from ztunnel.transport.ends import RelayEnd

log = logging.getLogger("ztunnel.direct")

# More than an agent lists (16,384 and those under way): beyond this nobody would decide about one.
# Each has two records of about 1 KiB.
FLOWS_MAX: Final = 32_768
# Flows that ended here first: what the kernel says of their end is no news.
ENDED_MAX: Final = 1024
ERROR_CHARS_MAX: Final = 80
# A new agent reports all open flows within a moment; a flow that it does not name is over.
CONFIRM_S: Final = 10.0

NEVER_ESTABLISHED: Final = "failed"
_ERRORS: Final = {NEVER_ESTABLISHED: "connect failed", "aborted": RelayEnd.APP_RESET.value}

Cut = Callable[[int], None]


class FlowRecord:
    """One connection in the kernel, with a record for each of its pods."""

    __slots__ = ("_flows", "condemned", "moved", "opened", "permitted", "sides")

    def __init__(self, flows: FlowBook, opened: OpenedFlow, pair: PodPair) -> None:
        self._flows = flows
        self.opened = opened
        self.condemned: RelayEnd | None = None
        self.permitted: Connection | None = None
        self.moved = (0, 0)  # client → server, server → client
        self.sides = (
            Side(self, pair.source.outbound, flows.outcome(opened, pair, Reporter.SOURCE)),
            Side(self, pair.destination.inbound, flows.outcome(opened, pair, Reporter.DESTINATION)),
        )

    def decide(self, local: Workload | None) -> None:
        """Let it stay or condemn it. Called at its start and after each change of policy."""
        state = self._flows.engine.state
        if not state.synced or local is None or self.condemned is not None:
            return
        if self.permitted is not None:
            if isinstance(recheck(state, local, self.permitted), Deny):
                self.condemn(RelayEnd.POLICY)
            return
        answer = self._flows.ask(self.opened)
        if isinstance(answer, Refusal):
            self.condemn(RelayEnd.POLICY)
        elif answer is not None:
            self.admitted(answer)

    def admitted(self, answer: Admit) -> None:
        self.permitted = answer.permit.connection
        for side in self.sides:
            side.outcome.parties.policy = answer.permit.policy
        tell_would_deny(self._flows.engine, answer, self.sides[0].outcome.parties.tenant)

    def condemn(self, why: RelayEnd) -> None:
        """Have the agent end it. The kernel's report of the end then brings its bytes."""
        self.condemned = why
        self._flows.cut(self, why)

    def leave(self) -> None:
        """Take it off the books without a log line."""
        for side in self.sides:
            side.book.pop(side, None)

    def close(self, flag: Flag, error: str) -> None:
        self.leave()
        for side in self.sides:
            side.outcome.closed(self._flows.engine.counters, flag, error)


class Side:
    """One pod's record of a flow; an `OpenConnection`."""

    __slots__ = ("book", "flow", "outcome")

    def __init__(self, flow: FlowRecord, book: Book, outcome: Outcome) -> None:
        self.flow = flow
        self.book = book
        self.outcome = outcome

    def abort(self, reason: RelayEnd) -> None:
        self.flow._flows.abort(self.flow, reason)

    def on_bug(self) -> None:
        """Fail closed."""
        self.flow.condemn(RelayEnd.INTERNAL_ERROR)

    def recheck(self, workload: Workload | None) -> None:
        self.flow.decide(workload)


class FlowBook:
    """All flows of one worker."""

    def __init__(self, engine: Engine, cut: Cut, flows_max: int = FLOWS_MAX) -> None:
        self._flows_max = flows_max
        self.engine = engine
        self._cut = cut
        self._pairs = PodPairs(engine)
        self._open: dict[int, FlowRecord] = {}
        self._homeless: dict[int, OpenedFlow] = {}  # their pods are not served here, or not yet
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._unconfirmed: set[int] = set()
        self._confirm = engine.reactor.countdown(CONFIRM_S, FlowBook._forget_unconfirmed)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, line: FlowLine) -> None:
        """Act on a line of the agent. A flow that makes no sense costs that flow alone."""
        actions: dict[FlowNews, Callable[[object], None]] = {
            FlowNews.OPENED: self._opened,
            FlowNews.MOVED: self._moved,
            FlowNews.CLOSED: self._closed,
        }
        action = actions[line.kind]
        for each in line.flows:
            try:
                action(each)
            except WireError as exc:
                self.engine.counters.count("direct_flows_unreadable")
                event(log, logging.ERROR, "direct.unreadable", error=repr(exc))

    def _opened(self, record: object) -> None:
        opened = read_opened(record)
        self._unconfirmed.discard(opened.id)
        known = self._open.get(opened.id)
        if known is not None:  # reported again
            if known.condemned is not None:
                self.cut(known, known.condemned)
            return
        if len(self._open) + len(self._homeless) >= self._flows_max:
            self.engine.counters.count("direct_flows_over_limit")
            return
        pair = self._pair(opened)
        if pair is None:
            self._homeless[opened.id] = opened
        else:
            self._enter(opened, pair)

    def _enter(self, opened: OpenedFlow, pair: PodPair) -> None:
        flow = self._open[opened.id] = self._make(opened, pair)
        for side in flow.sides:
            # Not `engine.enter`: it costs no descriptor, and a drain does not wait for it.
            side.book[side] = None
        self.engine.reactor.serve(flow.sides[1], flow.decide, pair.server)

    def on_pods(self) -> None:
        """A pod came, perhaps after its connections: they outlive a ztunnel, and policy holds for
        them all the same."""
        for opened in list(self._homeless.values()):
            pair = self._pairs.of(opened)
            if pair is not None:
                del self._homeless[opened.id]
                self._enter(opened, pair)

    def _moved(self, record: object) -> None:
        number, sent, received = read_moved(record)
        flow = self._open.get(number)
        if flow is not None:
            flow.moved = (sent, received)

    def _closed(self, record: object) -> None:
        closed = read_closed(record)
        opened = closed.flow
        self._homeless.pop(opened.id, None)
        if opened.id in self._ended:
            del self._ended[opened.id]
            return
        error = closed.error[:ERROR_CHARS_MAX]
        flow = self._open.pop(opened.id, None)
        if flow is None:
            pair = self._pair(opened)
            if pair is None:
                return
            flow = self._make(opened, pair, established=error != NEVER_ESTABLISHED)
            answer = pair.ask(self.engine.state, opened)
            if isinstance(answer, Admit):  # it is over: a no would have nothing to end
                flow.admitted(answer)
        flow.moved = (closed.sent, closed.received)
        for side in flow.sides:
            side.outcome.parties.measured = (closed.srtt_us, closed.retransmits)
        if flow.condemned is None:
            failed = error == NEVER_ESTABLISHED
            flow.close(Flag.CONNECT if failed else Flag.NONE, _ERRORS.get(error, error))
        else:
            flag = Flag.DENY if flow.condemned is RelayEnd.POLICY else Flag.NONE
            flow.close(flag, flow.condemned.value)

    def _pair(self, opened: OpenedFlow) -> PodPair | None:
        pair = self._pairs.of(opened)
        if pair is None:
            self.engine.counters.count("direct_flows_unknown_pod")
        return pair

    def _make(self, opened: OpenedFlow, pair: PodPair, *, established: bool = True) -> FlowRecord:
        flow = FlowRecord(self, opened, pair)
        for side in flow.sides if established else ():
            side.outcome.opened(self.engine.counters, lambda: flow.moved)
        return flow

    def ask(self, opened: OpenedFlow) -> Admit | Refusal | None:
        """Answer of the policies. None: one of the two pods is gone, or is being deleted."""
        pair = self._pairs.of(opened)
        return None if pair is None else pair.ask(self.engine.state, opened)

    def outcome(self, opened: OpenedFlow, pair: PodPair, reporter: Reporter) -> Outcome:
        return self.engine.outcome(pair.parties(opened, reporter), opened.age_s)

    def on_agent(self) -> None:
        """Doubt every flow: nobody will report those that ended while no agent was there."""
        self._homeless.clear()  # the agent names them again
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
        """Nothing to do: the agent's next connection tries again."""

    # -- ends ------------------------------------------------------------------------------------

    def cut(self, flow: FlowRecord, why: RelayEnd) -> None:
        if why is RelayEnd.POLICY:
            self.engine.counters.refuse(Reason.POLICY_CHANGED)
        self.engine.counters.count("direct_flows_cut")
        event(log, logging.INFO, "direct.cut", flow=flow.opened.id, reason=why.value)
        self._cut(flow.opened.id)

    def abort(self, flow: FlowRecord, reason: RelayEnd) -> None:
        """End it because its pod is gone, or this worker is."""
        if self._open.pop(flow.opened.id, None) is None:
            return
        if reason is RelayEnd.DRAINED:
            for side in flow.sides:
                side.outcome.sync()
            flow.leave()
            return
        if len(self._ended) >= ENDED_MAX:
            self._ended.popitem(last=False)
        self._ended[flow.opened.id] = None
        self.cut(flow, reason)
        flow.close(Flag.NONE, reason.value)
