"""A worker's answers to the supervisor's questions, in pieces of JSON values; changes nothing.

An answer grows with connections and label sets, so no turn makes all of it and no frame holds it:
each function yields pieces, which `merge_answer` joins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from ztunnel.connections.engine import Engine
from ztunnel.connections.lookups import names_in_use
from ztunnel.direct.path import WorkerDirect
from ztunnel.tenants.figures import figures
from ztunnel.tenants.figures import gauges as tenant_gauges
from ztunnel.tenants.tenancy import Tenancy

# Entries in one answer about connections; the admin page says when there were more.
CONNECTIONS_SHOWN_MAX: Final = 5000
# Entries of one piece: some 60 KiB, 6 KiB each with the longest names. Takes up to 2 ms.
PIECE_ENTRIES: Final = 32
# Label sets compared with the names of those that have gone, for one piece: some 0.5 ms.
LOOKS_PER_PIECE: Final = 2048

# Name, labels, value.
Row = tuple[str, dict[str, str], int]
Piece = dict[str, Any]
_T = TypeVar("_T")


def connections(
    engine: Engine, path: WorkerDirect | None, shown_max: int = CONNECTIONS_SHOWN_MAX
) -> Iterator[Piece]:
    """Open connections of each pod, refusals of late, and counts of the direct path."""
    left = shown_max
    truncated = False
    for uid, pod in list(engine.pods.items()):
        yield {"connections": {uid: {"inbound": [], "outbound": []}}}
        for name, book in (("inbound", pod.inbound), ("outbound", pod.outbound)):
            chosen = list(islice(book, left))
            left -= len(chosen)
            truncated = truncated or len(chosen) < len(book)
            for part in _parts(chosen):
                shown = [each.outcome.view(engine.config.worker) for each in part]
                yield {"connections": {uid: {name: shown}}}
    for some in _parts(list(engine.counters.recent.all())):
        yield {"refused": [each.view(engine.config.worker) for each in some]}
    direct = {} if path is None else path.counts()
    yield {"truncated": truncated, "direct": direct, "tenants": figures(_tenants(engine))}


def names(engine: Engine) -> Iterator[Piece]:
    """Names that open and late connections rest on, where addresses come on demand."""
    for pod in list(engine.pods.values()):
        for part in _parts(sorted(names_in_use(engine.state, pod))):
            yield {"names": part}
    yield {"names": []}


def metrics(
    engine: Engine, path: WorkerDirect | None, *, bugs: int, lines_dropped: int
) -> Iterator[Piece]:
    """Counters and gauges of this worker; what is bounded by itself first."""
    counters: list[Row] = [
        *engine.counters.totals(),
        ("tulle_ztunnel_internal_errors_total", {}, bugs),
        ("tulle_ztunnel_source_not_shown_total", {}, engine.dialer.source_not_shown),
        ("tulle_ztunnel_unknown_policies_total", {}, engine.state.unknown_policies),
        ("tulle_ztunnel_turns_total", {}, engine.reactor.turns),
        ("tulle_ztunnel_slowed_total", {}, engine.reactor.bill.slowed),
        ("tulle_ztunnel_polls_total", {"outcome": "hit"}, engine.reactor.spin.hits),
        ("tulle_ztunnel_polls_total", {"outcome": "miss"}, engine.reactor.spin.misses),
        ("tulle_ztunnel_log_lines_dropped_total", {}, lines_dropped),
    ]
    gauges = [*_gauges(engine), *tenant_gauges(_tenants(engine))]
    if path is not None:
        gauges += path.gauges()
    yield {"counters": counters, "gauges": gauges}
    for pod in list(engine.pods.values()):
        for book in (pod.outbound, pod.inbound):
            for part in _parts(list(book)):
                for connection in part:
                    connection.outcome.sync()
                yield {}
    for rows in engine.counters.changed(PIECE_ENTRIES):
        yield {"counters": rows}
    for _ in engine.counters.departed.look(engine.reactor.now_s, LOOKS_PER_PIECE):
        yield {}
    for rows in engine.counters.forgotten(PIECE_ENTRIES):
        yield {"forgotten": rows}


def _tenants(engine: Engine) -> Iterator[Tenancy]:
    engine.reactor.bill.settle()
    yield from [pod.tenant for pod in engine.pods.values()]
    yield from engine.tenants.strangers()


def _parts(entries: list[_T]) -> Iterable[list[_T]]:
    for start in range(0, len(entries), PIECE_ENTRIES):
        yield entries[start : start + PIECE_ENTRIES]


def _gauges(engine: Engine) -> list[Row]:
    pods = engine.pods.values()
    source, destination = {"reporter": "source"}, {"reporter": "destination"}
    return [
        ("istio_tcp_sockets_open", source, sum(len(pod.outbound) for pod in pods)),
        ("istio_tcp_sockets_open", destination, sum(len(pod.inbound) for pod in pods)),
        ("tulle_ztunnel_tunnels", source, engine.pool.tunnels),
        ("tulle_ztunnel_tunnels", destination, sum(len(pod.tunnels) for pod in pods)),
        ("tulle_ztunnel_tls_contexts", {}, len(engine.credentials)),
    ]
