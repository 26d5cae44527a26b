"""One record per connection and side: the access log line, the counters, the admin's view of it.

The byte path only adds to plain integers of its relay; labels are looked up when a connection
opens, log lines are made when it ends. It decides nothing and never raises for what a peer does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from control.kit.clock import Clock
from control.kit.log import event
from control.model.address import Endpoint
from control.model.identity import SpiffeId
from control.model.workload import Service, Workload

access_log = logging.getLogger("access")

# Label sets per worker. A mesh of 100 workloads that all talk to each other has 10,000 pairs;
# beyond this new pairs are counted together as "other", so no caller can fill the memory.
LABEL_SETS_MAX: Final = 10_000
_UNKNOWN: Final = "unknown"
_OTHER: Final = "other"


class Flag(Enum):
    """`response_flags` of Istio's TCP metrics."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"


class Reporter(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(slots=True)
class Series:
    """The counters of one label set, without the flags."""

    labels: dict[str, str]
    opened: int = 0
    closed: dict[Flag, int] = field(default_factory=dict)
    failed: dict[Flag, int] = field(default_factory=dict)
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class Parties:
    """Who talks to whom, as far as it is known. Filled while the connection is being set up."""

    reporter: Reporter
    source_address: Endpoint
    destination_address: Endpoint  # what was dialled or accepted: the tunnel, for HBONE
    source: Workload | None = None
    destination: Workload | None = None
    service: Service | None = None
    target: Endpoint | None = None  # the pod's own port, when it is inside a tunnel
    source_identity: SpiffeId | None = None  # verified by TLS, else None
    destination_identity: SpiffeId | None = None
    original: Endpoint | None = None  # what the client dialled
    policy: str | None = None  # the ALLOW policy that matched


class Counters:
    """Everything a worker counts; answers the supervisor's queries."""

    def __init__(self, label_sets_max: int = LABEL_SETS_MAX) -> None:
        self._label_sets_max = label_sets_max
        self.refusals: dict[str, int] = {}
        self.engine: dict[str, int] = {}
        self._series: dict[tuple[object, ...], Series] = {}
        self.label_sets_refused = 0

    def refuse(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def count(self, name: str) -> None:
        self.engine[name] = self.engine.get(name, 0) + 1

    def series(self, parties: Parties) -> Series:
        key: tuple[object, ...] = (
            parties.reporter.value,  # an Enum's own hash is a Python call
            _workload_key(parties.source),
            _workload_key(parties.destination),
            parties.service.key if parties.service else "",
            parties.source_identity,
            parties.destination_identity,
        )
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= self._label_sets_max:
                self.label_sets_refused += 1
                key = (parties.reporter, _OTHER)
                found = self._series.get(key)
            if found is None:
                overflow = len(key) == 2
                found = Series(_other_labels(parties) if overflow else tcp_labels(parties))
                self._series[key] = found
        return found

    def export(self) -> Iterator[tuple[str, dict[str, str], int]]:
        for series in self._series.values():
            plain = {**series.labels, "response_flags": Flag.NONE.value}
            yield "istio_tcp_connections_opened_total", plain, series.opened
            yield "istio_tcp_received_bytes_total", plain, series.received_bytes
            yield "istio_tcp_sent_bytes_total", plain, series.sent_bytes
            for name, by_flag in (("closed", series.closed), ("failed", series.failed)):
                for flag, number in by_flag.items():
                    labels = {**series.labels, "response_flags": flag.value}
                    yield f"istio_tcp_connections_{name}_total", labels, number
        for reason, number in sorted(self.refusals.items()):
            yield "tulle_ztunnel_refusals_total", {"reason": reason}, number
        for name, number in sorted(self.engine.items()):
            yield f"tulle_ztunnel_{name}_total", {}, number
        yield "tulle_ztunnel_label_sets_refused_total", {}, self.label_sets_refused


def _workload_key(workload: Workload | None) -> tuple[str, ...] | str:
    """Pods of one deployment share their labels, so they share their counters."""
    if workload is None:
        return ""
    locality = workload.locality
    return (
        workload.workload_name or workload.name,
        workload.namespace,
        workload.canonical_name,
        workload.canonical_revision,
        workload.service_account,
        workload.cluster_id,
        locality.region,
        locality.zone,
    )


def tcp_labels(parties: Parties) -> dict[str, str]:
    """Istio's TCP label set; what is not known says so."""
    service = parties.service
    labels = {"reporter": parties.reporter.value, "request_protocol": "tcp"}
    secured = parties.source_identity is not None and parties.destination_identity is not None
    labels["connection_security_policy"] = "mutual_tls" if secured else _UNKNOWN
    labels |= _side("source", parties.source, parties.source_identity)
    labels |= _side("destination", parties.destination, parties.destination_identity)
    labels["destination_service"] = service.hostname if service else _UNKNOWN
    labels["destination_service_name"] = service.name if service else _UNKNOWN
    labels["destination_service_namespace"] = service.namespace if service else _UNKNOWN
    return labels


def _other_labels(parties: Parties) -> dict[str, str]:
    return {
        name: value if name in ("reporter", "request_protocol") else _OTHER
        for name, value in tcp_labels(parties).items()
    }


def _side(side: str, workload: Workload | None, identity: SpiffeId | None) -> dict[str, str]:
    values = {
        "workload": workload and (workload.workload_name or workload.name),
        "canonical_service": workload and workload.canonical_name,
        "canonical_revision": workload and workload.canonical_revision,
        "workload_namespace": workload and workload.namespace,
        "principal": identity and str(identity),
        "app": workload and workload.canonical_name,
        "version": workload and workload.canonical_revision,
        "cluster": workload and workload.cluster_id,
        "region": workload and workload.locality.region,
        "zone": workload and workload.locality.zone,
    }
    return {f"{side}_{name}": value or _UNKNOWN for name, value in values.items()}


class Outcome:
    """What becomes of one connection. `open` once it is set up, `close` exactly once."""

    __slots__ = (
        "_clock",
        "_counted",
        "_log",
        "_opened_s",
        "_series",
        "bytes_now",
        "over",
        "parties",
    )

    def __init__(self, clock: Clock, parties: Parties, log: bool) -> None:
        self._clock = clock
        self._log = log
        self.parties = parties
        self._opened_s = clock.monotonic_s()
        self._series: Series | None = None
        self._counted = (0, 0)
        self.over = False
        # (client → server, server → client) so far
        self.bytes_now: Callable[[], tuple[int, int]] = _no_bytes

    def opened(self, counters: Counters, bytes_now: Callable[[], tuple[int, int]]) -> None:
        """The connection carries bytes from now on."""
        self._series = counters.series(self.parties)
        self._series.opened += 1
        self.bytes_now = bytes_now
        if self._log:
            event(access_log, logging.DEBUG, "connection opened", **self._fields(0, 0))

    def sync(self) -> None:
        """Bring the counters up to date; long connections are asked when somebody looks."""
        if self._series is None:
            return
        received, sent = self.bytes_now()
        self._series.received_bytes += received - self._counted[0]
        self._series.sent_bytes += sent - self._counted[1]
        self._counted = (received, sent)

    def closed(self, counters: Counters, flag: Flag, error: str) -> None:
        """The end, for whatever reason; `error` is empty when both sides finished."""
        if self.over:
            return
        self.over = True
        self.sync()
        if self._series is not None:
            _add(self._series.closed, flag)
        else:
            _add(counters.series(self.parties).failed, flag)
        self.bytes_now = _no_bytes
        if self._log:
            self._write(flag, error)

    def _write(self, flag: Flag, error: str) -> None:
        level = logging.INFO
        if error:
            level = logging.WARNING if flag is Flag.DENY else logging.ERROR
        if not access_log.isEnabledFor(level):
            return
        received, sent = self._counted
        fields = self._fields(received, sent)
        fields["duration"] = f"{round(self._age().total_seconds() * 1000)}ms"
        if error:
            fields["error"] = error
        event(access_log, level, "connection complete", **fields)

    def _age(self) -> timedelta:
        return timedelta(seconds=self._clock.monotonic_s() - self._opened_s)

    def _fields(self, received: int, sent: int) -> dict[str, object]:
        """Bytes are those of the local workload: what it sent, what it received."""
        p = self.parties
        outbound = p.reporter is Reporter.SOURCE
        fields: dict[str, object] = {"src.addr": p.source_address}
        _side_fields(fields, "src", p.source, p.source_identity)
        fields["dst.addr"] = p.destination_address
        if p.target is not None:
            fields["dst.hbone_addr"] = p.target
        if p.service is not None:
            fields["dst.service"] = p.service.hostname
        _side_fields(fields, "dst", p.destination, p.destination_identity)
        fields["direction"] = "outbound" if outbound else "inbound"
        fields["bytes_sent"] = received if outbound else sent
        fields["bytes_recv"] = sent if outbound else received
        return fields

    def view(self, worker: int) -> dict[str, Any]:
        """One entry of `workloadState[uid].connections`."""
        p = self.parties
        received, sent = self.bytes_now() if not self.over else self._counted
        outbound = p.reporter is Reporter.SOURCE
        hbone = p.target is not None
        return {
            "src": str(p.source_address),
            "originalDst": str(p.original or p.destination_address),
            "actualDst": str(p.destination_address),
            "protocol": "HBONE" if hbone else "TCP",
            "sourceIdentity": str(p.source_identity or ""),
            "destinationIdentity": str(p.destination_identity or ""),
            "sourceWorkload": _name(p.source),
            "destinationWorkload": _name(p.destination),
            "service": p.service.hostname if p.service else "",
            "policy": p.policy or "",
            "openedAt": (self._clock.now() - self._age()).isoformat(),
            "bytesSent": received if outbound else sent,
            "bytesReceived": sent if outbound else received,
            "worker": worker,
        }


def _name(workload: Workload | None) -> str:
    return f"{workload.namespace}/{workload.name}" if workload is not None else ""


def _side_fields(
    fields: dict[str, object], side: str, workload: Workload | None, identity: SpiffeId | None
) -> None:
    if workload is not None:
        fields[f"{side}.workload"] = workload.name
        fields[f"{side}.namespace"] = workload.namespace
    if identity is not None:
        fields[f"{side}.identity"] = identity
    if workload is not None:
        fields[f"{side}.cluster"] = workload.cluster_id


def _no_bytes() -> tuple[int, int]:
    return (0, 0)


def _add(by_flag: dict[Flag, int], flag: Flag) -> None:
    by_flag[flag] = by_flag.get(flag, 0) + 1
