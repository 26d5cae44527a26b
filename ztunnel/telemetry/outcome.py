"""One record per connection and side: bytes, end, and the admin page's view of it.

The byte path only adds to plain integers of its relay; labels are looked up when a connection
opens, a line is made when it ends. It decides nothing and never raises for what a peer does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from control.kit.clock import Clock
from control.model.workload import Workload
from ztunnel.refusals import Flag
from ztunnel.telemetry.access_log import AccessLog
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.parties import Parties, Reporter, Series
from ztunnel.tenants.lines import may_log_end
from ztunnel.tenants.work import may_log


class Outcome:
    """Outcome of one connection. Call `open` once it is set up, `close` exactly once."""

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

    def __init__(
        self, clock: Clock, parties: Parties, log: AccessLog | None, age_s: float = 0.0
    ) -> None:
        """`age_s`: how long the connection has been open already."""
        self._clock = clock
        self._log = log
        self.parties = parties
        self._opened_s = clock.monotonic_s() - age_s
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
        if self._log is not None:
            self._log.opened(self.parties)

    def sync(self) -> None:
        """Bring the counters of a long connection up to date, for a scrape."""
        series = self._series
        if series is None:
            return
        moved = self.bytes_now()
        series.received_bytes += moved[0] - self._counted[0]
        series.sent_bytes += moved[1] - self._counted[1]
        self._counted = moved

    def closed(self, counters: Counters, flag: Flag, error: str) -> None:
        """The end, for whatever reason; `error` is empty when both sides finished."""
        if self.over:
            return
        self.over = True
        self.sync()
        series = self._series
        if series is None:
            _add(counters.series(self.parties).failed, flag)
        elif flag is Flag.NONE:
            series.finished += 1
        else:
            _add(series.closed, flag)
        self.bytes_now = _no_bytes
        if error and (series is None or flag is Flag.DENY):
            counters.recent.add(self.parties, flag, error, self._clock.now())
        if self._log is None:
            return
        if self._may_log():
            received, sent = self._counted
            self._log.closed(self.parties, received, sent, self._opened_s, flag, error)
        else:
            counters.count("access_lines_left_out")

    def _may_log(self) -> bool:
        """False if the tenant had many: soon for connections that were never open."""
        tenant = self.parties.tenant
        if tenant is None:
            return True
        now_s = self._clock.monotonic_s()
        return may_log(tenant, now_s) if self._series is None else may_log_end(tenant, now_s)

    def _age(self) -> timedelta:
        return timedelta(seconds=self._clock.monotonic_s() - self._opened_s)

    def view(self, worker: int) -> dict[str, Any]:
        """One entry of `workloadState[uid].connections`."""
        p = self.parties
        received, sent = self.bytes_now() if not self.over else self._counted
        outbound = p.reporter is Reporter.SOURCE
        hbone = p.target is not None
        # A tunnel's own port means nothing here: its streams are shown at the app's port.
        actual = p.destination_address if outbound or p.target is None else p.target
        return {
            "src": str(p.source_address),
            "originalDst": str(p.original or actual),
            "actualDst": str(actual),
            "protocol": "HBONE" if hbone else "TCP",
            "path": "direct" if p.direct else "hbone" if hbone else "tcp",
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


def _no_bytes() -> tuple[int, int]:
    return (0, 0)


def _add(by_flag: dict[Flag, int], flag: Flag) -> None:
    by_flag[flag] = by_flag.get(flag, 0) + 1
