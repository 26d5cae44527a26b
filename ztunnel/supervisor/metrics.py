"""Numbers of the metrics page: the workers' counters, added up, and the supervisor's own.

Workers are asked at scrape time, and every few seconds in between, so that a crash loses little.
The counters of a dead worker stay in the sum: a counter that goes back would look like a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from control.kit.log import event

log = logging.getLogger("metrics")

SERIES_MAX = 100_000  # over all workers: a scraper still takes it, and no honest node gets there

_ISTIO = {
    "istio_tcp_connections_opened_total": "TCP connections opened",
    "istio_tcp_connections_closed_total": "TCP connections closed",
    "istio_tcp_connections_failed_total": "TCP connections that could not be established",
    "istio_tcp_received_bytes_total": "Bytes from the client to the server",
    "istio_tcp_sent_bytes_total": "Bytes from the server to the client",
    "istio_tcp_sockets_open": "TCP connections open now",
    "istio_build": "Component and version of this process",
    "istio_xds_connection_terminations_total": "Ended streams to the control plane, by reason",
    "istio_xds_message_total": "Messages from the control plane, by type",
    "istio_xds_message_bytes_total": "Bytes of messages from the control plane, by type",
    "workload_manager_active_proxy_count": "Pods served",
    "workload_manager_pending_proxy_count": "Pods whose workload the control plane does not know",
    "workload_manager_proxies_started_total": "Pods taken into service",
    "workload_manager_proxies_stopped_total": "Pods taken out of service",
}
_TULLE = {
    "worker_restarts_total": "Worker processes that were replaced",
    "workers_ready": "Worker processes that are up",
    "tunnels": "Tunnels open now",
    "connections_moved_total": "Connections tried once more, because their first peer was lost",
    "inbound_tunnels_opened_total": "Tunnels from peers that passed the handshake",
    "tls_contexts": "TLS contexts (certificate and key) that workers hold, added up",
    "refusals_total": "Connections refused, by reason",
    "addresses_asked": "Addresses asked for on demand, by stage; none where all come unasked",
    "http_refused_total": "Requests that admin, metrics and readiness doors refused, by reason",
    "would_deny_total": "Connections a dry-run policy would have refused",
    "unknown_policies_total": "Times a workload named a policy that has not arrived",
    "accepted_and_gone_total": "Clients that left before they were served",
    "accept_paused_too_many_connections_total": "Pauses in accepting at the limit for connections",
    "accept_paused_too_many_refusals_total": "Pauses in accepting from a pod that is only refused",
    "accept_paused_no_descriptors_total": "Pauses in accepting for lack of descriptors or memory",
    "accept_paused_accept_failed_total": "Pauses in accepting after an unexpected error",
    "source_not_shown_total": "Dials to apps that could not show the client's address",
    "label_sets_refused_total": "Label sets counted as `other`, beyond the limit",
    "internal_errors_total": "Connections ended by a bug; the log has each traceback",
    "access_lines_left_out_total": "Lines of the access log left out, as their tenant had so many",
    "log_lines_dropped_total": "Log lines dropped because their reader was too slow",
    "tenant_connections": "Connections open now, of the tenants that use most, and of others",
    "tenant_tunnels": "Tunnels open now, of the same",
    "tenant_queued_bytes": "Bytes that wait in workers because nobody takes them, of the same",
    "tenant_refused": "Refusals since the workers' start, of the same",
    "tenant_cpu_ms": "CPU time spent on them since the workers' start, of the same",
    "tenant_slowed": "Turns in which they had less time than they could use, of the same",
    "slowed_total": "Turns in which a tenant had less time than it could use, as it had had more",
    "turns_total": "Rounds of the workers' event loops",
    "polls_total": "Polls in place of a sleep: `hit` found work, `miss` found none",
    "direct_connected": "1 while the line to the agent for the direct path is up",
    "direct_generations_total": "Changes that made every verdict in the kernel stale",
    "direct_lines_total": "Lines exchanged with the agent, by kind",
    "direct_unknown_lines_total": "Lines from the agent of an unknown kind, ignored",
    "direct_verdicts_total": "Verdicts offered to the kernel",
    "direct_services_total": "Shares of services offered to the kernel",
    "direct_services": "Shares of services offered to the kernel, in force",
    "direct_services_forgotten_total": "Shares of services taken back from the kernel",
    "direct_flows": "Connections open now that the kernel carries",
    "direct_flows_cut_total": "Connections in the kernel that a worker has had cut",
    "direct_flows_lost_total": "Connections in the kernel whose end was never reported",
    "direct_flows_over_limit_total": "Connections in the kernel beyond the limit of a worker",
    "direct_flows_unknown_pod_total": "Connections in the kernel of a pod not served here",
    "direct_flows_unreadable_total": "Unreadable reports of connections in the kernel",
}
# Keyed by the name on the page.
HELP = _ISTIO | {f"tulle_ztunnel_{name}": text for name, text in _TULLE.items()}

Labels = tuple[tuple[str, str], ...]
Table = dict[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. A counter's name ends in `_total`, a gauge's does not."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


class Tally:
    """Sums over workers, alive and dead."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Table, Table]] = {}
        self._retired: Table = {}

    def heard(self, worker: int, piece: dict[str, Any]) -> None:
        """Take over a piece of a worker's answer: counts of what has changed. Nonsense from a
        worker is dropped and logged."""
        try:
            counters = _table(piece.get("counters", ()))
            forgotten = _table(piece.get("forgotten", ()))
            gauges = _table(piece["gauges"]) if "gauges" in piece else None
        except (TypeError, ValueError, AttributeError) as exc:
            event(log, logging.ERROR, "metrics.unreadable", worker=worker, error=repr(exc))
            return
        its_counters, its_gauges = self._last.setdefault(worker, ({}, {}))
        for key, value in counters.items():
            if key in its_counters or len(its_counters) < SERIES_MAX:
                its_counters[key] = value
        for key in forgotten:
            its_counters.pop(key, None)
            self._retired.pop(key, None)
        if gauges is not None:
            its_gauges.clear()
            its_gauges.update(gauges)

    def worker_lost(self, worker: int) -> None:
        counters, _ = self._last.pop(worker, ({}, {}))
        _add(self._retired, counters)

    def samples(self) -> Iterator[Sample]:
        counters: Table = dict(self._retired)
        gauges: Table = {}
        for its_counters, its_gauges in self._last.values():
            _add(counters, its_counters)
            _add(gauges, its_gauges)
        for table in (counters, gauges):
            for (name, labels), value in table.items():
                yield Sample(name, value, dict(labels))


def _table(rows: Iterable[tuple[str, dict[str, str], float]]) -> Table:
    table: Table = {}
    for name, labels, value in rows:
        if len(table) >= SERIES_MAX:
            raise ValueError("too many series")
        key = (str(name), tuple(sorted((str(k), str(v)) for k, v in labels.items())))
        table[key] = table.get(key, 0.0) + float(value)
    return table


def _add(into: Table, other: Table) -> None:
    for key, value in other.items():
        if key in into or len(into) < SERIES_MAX:
            into[key] = into.get(key, 0.0) + value
