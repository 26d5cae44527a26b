"""Counters of a worker, by Istio's label sets; bounded, so that no caller can fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.departed import Departed, Key
from ztunnel.telemetry.parties import Parties, Series
from ztunnel.telemetry.recent import RecentRefusals
from ztunnel.tenants.bounds import LABEL_SETS
from ztunnel.tenants.portions import Portions
from ztunnel.tenants.tenancy import Kind, Tenancy

# Name, labels, value.
Row = tuple[str, dict[str, str], int]
_UNKNOWN: Final = "unknown"
_OTHER: Final = "other"
# Pays for connections that the kernel carries: their pods are not asked for anything here.
_NOBODY: Final = Tenancy(Kind.POD, "")


class Counters:
    """All counters of a worker; answers the supervisor's queries."""

    def __init__(
        self,
        label_sets_max: int = LABEL_SETS.total,
        known: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        """`known(name)`: the workload with that uid, or the service with that key, is in the mesh
        now."""
        self._portions: Final = Portions(LABEL_SETS, label_sets_max)
        self.refusals: dict[str, int] = {}
        self.recent: Final = RecentRefusals()
        self.engine: dict[str, int] = {}
        self._series: dict[Key, Series] = {}
        self.departed: Final = Departed(self._series, known, self._dropped)
        self.label_sets_refused = 0

    def refuse(self, reason: Reason) -> None:
        self.refusals[reason.word] = self.refusals.get(reason.word, 0) + 1

    def count(self, name: str) -> None:
        self.engine[name] = self.engine.get(name, 0) + 1

    def series(self, parties: Parties) -> Series:
        """The counters of a connection between these parties. Hashing a whole label set takes 5
        µs, so the parties' memo is tried first."""
        memo = parties.memo
        if memo is None:
            return self._find(parties)
        found = memo.series
        if found is None or found.gone:
            found = memo.series = self._find(parties)
        return found

    def _find(self, parties: Parties) -> Series:
        key: Key = (
            parties.reporter.value,  # an Enum's own hash is a Python call
            _workload_key(parties.source),
            _workload_key(parties.destination),
            parties.service.key if parties.service else "",
            parties.source_identity,
            parties.destination_identity,
            parties.direct,
        )
        found = self._series.get(key)
        if found is None:
            payer = parties.tenant or _NOBODY
            if self._has_room(payer):
                found = self._series[key] = Series(tcp_labels(parties), payer=payer)
                self._portions.add(payer, 1)
            else:
                self.label_sets_refused += 1
                key = (parties.reporter, _OTHER, parties.direct)
                found = self._series.get(key)
                if found is None:
                    found = self._series[key] = Series(_other_labels(parties))
        found.names = _names(parties)
        self.departed.used(key, found.names)
        return found

    def _has_room(self, payer: Tenancy) -> bool:
        """True if the tenant may have another label set, perhaps in place of a departed one."""
        portions = self._portions
        if payer is _NOBODY:
            return not portions.full or self.departed.make_room()
        if not portions.may(payer):
            self.departed.make_room()
        return portions.may(payer)

    def _dropped(self, series: Series) -> None:
        if series.payer is not None:
            self._portions.give(series.payer)

    def changed(self, sets_max: int) -> Iterator[list[Row]]:
        """Rows of the label sets that have changed since they were last taken, whole counts, of at
        most this many sets at a time."""
        rows: list[Row] = []
        taken = 0
        for series in list(self._series.values()):
            if series.is_told():
                continue
            rows += _rows(series)
            taken += 1
            if taken >= sets_max:
                yield rows
                rows, taken = [], 0
        yield rows

    def forgotten(self, sets_max: int) -> Iterator[list[Row]]:
        """Last rows of the label sets that were dropped, of at most this many sets at a time."""
        dropped = self.departed.take_dropped()
        for start in range(0, len(dropped), sets_max):
            yield [row for each in dropped[start : start + sets_max] for row in _rows(each)]

    def totals(self) -> Iterator[Row]:
        """Rows without label sets: refusals by reason, events of the engine."""
        for reason, number in sorted(self.refusals.items()):
            yield "tulle_ztunnel_refusals_total", {"reason": reason}, number
        for name, number in sorted(self.engine.items()):
            yield f"tulle_ztunnel_{name}_total", {}, number
        yield "tulle_ztunnel_label_sets_refused_total", {}, self.label_sets_refused


def _rows(series: Series) -> Iterator[Row]:
    plain = {**series.labels, "response_flags": Flag.NONE.value}
    yield "istio_tcp_connections_opened_total", plain, series.opened
    yield "istio_tcp_received_bytes_total", plain, series.received_bytes
    yield "istio_tcp_sent_bytes_total", plain, series.sent_bytes
    if series.finished:
        yield "istio_tcp_connections_closed_total", plain, series.finished
    for name, by_flag in (("closed", series.closed), ("failed", series.failed)):
        for flag, number in by_flag.items():
            labels = {**series.labels, "response_flags": flag.value}
            yield f"istio_tcp_connections_{name}_total", labels, number


def _names(parties: Parties) -> tuple[str, ...]:
    known = (parties.source, parties.destination)
    names = [each.uid for each in known if each is not None]
    return (*names, parties.service.key) if parties.service is not None else tuple(names)


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
    """Istio's TCP label set, with `unknown` where a value is."""
    service = parties.service
    labels = {"reporter": parties.reporter.value, "request_protocol": "tcp"}
    secured = parties.source_identity is not None and parties.destination_identity is not None
    labels["connection_security_policy"] = "mutual_tls" if secured else _UNKNOWN
    if parties.direct:
        # No wire, no encryption; the identities are the kernel's word.
        labels |= {"connection_security_policy": "none", "path": "direct"}
    labels |= _side("source", parties.source, parties.source_identity)
    labels |= _side("destination", parties.destination, parties.destination_identity)
    labels["destination_service"] = service.hostname if service else _UNKNOWN
    labels["destination_service_name"] = service.name if service else _UNKNOWN
    labels["destination_service_namespace"] = service.namespace if service else _UNKNOWN
    return labels


def _other_labels(parties: Parties) -> dict[str, str]:
    return {
        name: value if name in ("reporter", "request_protocol", "path") else _OTHER
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
