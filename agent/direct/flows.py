"""The table of open direct connections, and the lines about them; pure, bounded, no socket.

Workload ids, the kernel's names, become uids here. Ids of pods that are gone are remembered for a
while, because the last connections of a pod are reported after it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.datapath.flows import FlowReport
from control.wire.direct_flows import (
    ClosedFlow,
    MovedFlow,
    OpenedFlow,
    closed_lines,
    moved_lines,
    opened_lines,
)

# More direct connections than one agent can follow, at 400 bytes each, 6 MiB in all. Once there are
# so many nothing new goes direct, see `FlowTable.is_full`.
FLOWS_MAX = 16384
# Room for connections under way when that is reached: half a ring of reports, and as many again.
UNDER_WAY_MAX = 8192
RESUME_TENTHS = 9  # direct again below nine tenths of the limit, so that it does not flap
RETIRED_MAX = 4096  # ids of pods that are gone; four full nodes


@dataclass(slots=True)
class DirectFlow:
    report: FlowReport  # its opening
    source: str
    destination: str
    opened_s: float
    bytes_moved: tuple[int, int] = (0, 0)  # sent and received, as last told


@dataclass(slots=True)
class FlowCounts:
    opened: int = 0
    closed: int = 0
    failed: int = 0  # closed, and never established
    unlisted: int = 0  # without room in the table, and therefore ended
    unknown: int = 0  # between workloads that we do not know
    lost: int = 0  # over without a report of their end


class FlowTable:
    def __init__(self, limit: int = FLOWS_MAX, under_way_max: int = UNDER_WAY_MAX) -> None:
        self.limit = limit
        self._room = limit + under_way_max
        self._unlisted: list[DirectFlow] = []
        self._resume = limit * RESUME_TENTHS // 10
        self._open: dict[int, DirectFlow] = {}
        self._uids: dict[int, str] = {}
        self._retired: dict[int, str] = {}  # the oldest first
        self.counts = FlowCounts()
        self.is_full = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[DirectFlow]:
        return iter(list(self._open.values()))

    def get(self, number: int) -> DirectFlow | None:
        return self._open.get(number)

    def named(self, workload: int, uid: str) -> None:
        self._uids[workload] = uid

    def retired(self, workload: int, uid: str = "") -> None:
        """The workload may not go direct any more; it may still have open connections."""
        uid = self._uids.pop(workload, "") or uid
        if uid:
            self._retired[workload] = uid
            if len(self._retired) > RETIRED_MAX:
                del self._retired[next(iter(self._retired))]

    def uids(self) -> set[str]:
        """The uids of all workloads that are known, retired ones included."""
        return {*self._uids.values(), *self._retired.values()}

    def _uid(self, workload: int) -> str | None:
        return self._uids.get(workload) or self._retired.get(workload)

    def take(self, events: Iterable[FlowReport], now_s: float) -> list[bytes]:
        """Lines about these reports; a connection opened and closed among them is one `closed`."""
        opened: dict[int, DirectFlow] = {}
        closed: list[ClosedFlow] = []
        for event in events:
            if event.is_closed:
                opened.pop(event.id, None)
                closed += self._close(event, now_s)
            else:
                opened.update(self._open_one(event, now_s))
        lines = [*opened_lines(_opened(each, now_s) for each in opened.values())]
        return [*lines, *closed_lines(closed)]

    def _open_one(self, event: FlowReport, now_s: float) -> dict[int, DirectFlow]:
        if event.id in self._open:
            return {}  # found by the sampler and told already
        self.counts.opened += 1
        source, destination = self._uid(event.source), self._uid(event.destination)
        if source is None or destination is None:
            self.counts.unknown += 1
            return {}
        flow = DirectFlow(event, source, destination, now_s - event.age_s)
        if len(self._open) >= self._room:
            self.counts.unlisted += 1
            self._unlisted.append(flow)
            return {}
        self._open[event.id] = flow
        self.is_full = self.is_full or len(self._open) >= self.limit
        return {event.id: flow}

    def unlisted(self) -> list[DirectFlow]:
        """Connections without room since the last call, which no policy could end."""
        found, self._unlisted = self._unlisted, []
        return found

    def _close(self, event: FlowReport, now_s: float) -> list[ClosedFlow]:
        self.counts.closed += 1
        self.counts.failed += event.error == "failed"
        known = self._open.pop(event.id, None)
        self.is_full = self.is_full and len(self._open) > self._resume
        if known is not None:
            age_s = now_s - known.opened_s
            return [_closed(event, known.source, known.destination, age_s)]
        source, destination = self._uid(event.source), self._uid(event.destination)
        if source is None or destination is None:
            self.counts.unknown += 1
            return []
        return [_closed(event, source, destination, event.age_s)]

    def lost(self, numbers: Iterable[int], now_s: float) -> list[bytes]:
        """Lines about connections that ended without a report; their last samples stand for it."""
        ends = []
        for number in numbers:
            flow = self._open.get(number)
            if flow is not None:
                self.counts.lost += 1
                sent, received = flow.bytes_moved
                ends.append(flow.report._replace(is_closed=True, sent=sent, received=received))
        return self.take(ends, now_s)

    def all_lines(self, now_s: float) -> list[bytes]:
        """`opened` lines of all open connections."""
        return [*opened_lines(_opened(each, now_s) for each in self)]

    def moved(self, samples: Iterable[tuple[int, int, int]]) -> list[bytes]:
        """`moved` lines of the samples (id, sent, received) that differ from what was told."""
        changed = []
        for number, sent, received in samples:
            flow = self._open.get(number)
            if flow is not None and flow.bytes_moved != (sent, received):
                flow.bytes_moved = (sent, received)
                changed.append(MovedFlow(number, sent, received))
        return [*moved_lines(changed)]


def _opened(flow: DirectFlow, now_s: float) -> OpenedFlow:
    return _named(flow.report, flow.source, flow.destination, now_s - flow.opened_s)


def _closed(event: FlowReport, source: str, destination: str, age_s: float) -> ClosedFlow:
    return ClosedFlow(
        _named(event, source, destination, age_s),
        event.sent,
        event.received,
        event.srtt_us,
        event.retransmits,
        event.error,
    )


def _named(event: FlowReport, source: str, destination: str, age_s: float) -> OpenedFlow:
    """The flow with its pods' uids instead of their workload ids."""
    ends = event.client, event.target, event.original
    return OpenedFlow(event.id, source, destination, *ends, age_s)
