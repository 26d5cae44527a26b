"""A worker's answers to the supervisor's questions, as JSON values; changes nothing."""

from __future__ import annotations

from typing import Any, Final

from ztunnel.connections.engine import Engine
from ztunnel.direct.path import WorkerDirect

# Entries in one answer about connections; the admin page says when there were more.
CONNECTIONS_SHOWN_MAX: Final = 5000

# Name, labels, value.
Row = tuple[str, dict[str, str], int]


def connections(
    engine: Engine, path: WorkerDirect | None, shown_max: int = CONNECTIONS_SHOWN_MAX
) -> dict[str, Any]:
    """Open connections of each pod, and counts of the direct path."""
    left = shown_max
    truncated = False
    pods: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for uid, pod in engine.pods.items():
        shown: dict[str, list[dict[str, Any]]] = {}
        for name, book in (("inbound", pod.inbound), ("outbound", pod.outbound)):
            chosen = list(book)[:left]
            shown[name] = [each.outcome.view(engine.config.worker) for each in chosen]
            left -= len(chosen)
            truncated = truncated or len(chosen) < len(book)
        pods[uid] = shown
    direct = {} if path is None else path.counts()
    return {"connections": pods, "truncated": truncated, "direct": direct}


def metrics(
    engine: Engine, path: WorkerDirect | None, *, bugs: int, lines_dropped: int
) -> dict[str, list[Row]]:
    """Counters and gauges of this worker."""
    for pod in engine.pods.values():
        for book in (pod.outbound, pod.inbound):
            for connection in book:
                connection.outcome.sync()
    counters: list[Row] = [
        *engine.counters.export(),
        ("tulle_ztunnel_internal_errors_total", {}, bugs),
        ("tulle_ztunnel_source_not_shown_total", {}, engine.dialer.source_not_shown),
        ("tulle_ztunnel_unknown_policies_total", {}, engine.state.unknown_policies),
        ("tulle_ztunnel_turns_total", {}, engine.reactor.turns),
        ("tulle_ztunnel_polls_total", {"outcome": "hit"}, engine.reactor.spin.hits),
        ("tulle_ztunnel_polls_total", {"outcome": "miss"}, engine.reactor.spin.misses),
        ("tulle_ztunnel_log_lines_dropped_total", {}, lines_dropped),
    ]
    gauges = _gauges(engine)
    if path is not None:
        gauges += path.gauges()
    return {"counters": counters, "gauges": gauges}


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
