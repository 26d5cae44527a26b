"""The access log: one line per connection in Istio's words, written once per turn; decides nothing.

It bypasses `logging`, whose record, formatter and write per line took a fifth of what a new
connection costs (33 of 165 µs). Level and scope are still those of the logger `access`, quoting
and field caps those of `control.kit.log`. Who is at either end is formatted once and remembered.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from control.kit.clock import Clock
from control.kit.log import json_pairs, stamp, text_pairs
from control.kit.sink import LineSink
from control.model.address import Endpoint
from control.model.identity import SpiffeId
from control.model.workload import Service, Workload
from ztunnel.loop.reactor import Reactor
from ztunnel.telemetry.parties import Flag, Parties, Reporter, endpoint_text

scope = logging.getLogger("access")

# Until the next try when nobody reads the lines.
RETRY_S: Final = 0.1
# At the very end; a second altogether.
FINISH_EVERY_S: Final = 0.01
FINISH_TRIES_MAX: Final = 100
# Texts about one end of a connection: the peers of a busy node, at some 300 bytes each.
ENDS_KEPT_MAX: Final = 2048


class Style:
    """How a line looks."""

    def __init__(
        self,
        middle: str,
        duration: str,
        direct: str,
        measured: str,
        pairs: Callable[[Mapping[str, object]], str],
    ) -> None:
        """`middle` takes the source, the destination's address, the destination and the
        direction; `duration` takes milliseconds, `measured` the smoothed round trip in
        microseconds and the number of retransmits."""
        self.middle = middle
        self.duration = duration
        self.direct = direct
        self.measured = measured
        self.pairs = pairs

    def line(
        self,
        time: str,
        level: str,
        message: str,
        source: str,
        middle: str,
        sent: int,
        received: int,
        more: str,
    ) -> str:
        """A whole line; `more` is what follows the number of bytes."""
        raise NotImplementedError


class TextStyle(Style):
    def line(
        self,
        time: str,
        level: str,
        message: str,
        source: str,
        middle: str,
        sent: int,
        received: int,
        more: str,
    ) -> str:
        return (
            f"{time}\t{level}\taccess\t{message} src.addr={source}{middle}"
            f" bytes_sent={sent} bytes_recv={received}{more}\n"
        )


class JsonStyle(Style):
    def line(
        self,
        time: str,
        level: str,
        message: str,
        source: str,
        middle: str,
        sent: int,
        received: int,
        more: str,
    ) -> str:
        return (
            f'{{"time": "{time}", "level": "{level}", "scope": "access", "message": "{message}"'
            f', "src.addr": "{source}"{middle}, "bytes_sent": {sent}, "bytes_recv": {received}'
            f"{more}}}\n"
        )


TEXT: Final = TextStyle(
    "%s dst.addr=%s%s direction=%s",
    " duration=%dms",
    " path=direct",
    " srtt=%dus retransmits=%d",
    text_pairs,
)
JSON: Final = JsonStyle(
    '%s, "dst.addr": "%s"%s, "direction": "%s"',
    ', "duration": "%dms"',
    ', "path": "direct"',
    ', "srtt": "%dus", "retransmits": %d',
    json_pairs,
)


class TurnWriter:
    """The lines of a turn go out together at its end; `write` and `flush` make it a stream for
    `logging` too, so that the worker's other lines keep their place among them."""

    def __init__(self, reactor: Reactor, sink: LineSink) -> None:
        self._reactor = reactor
        self._sink = sink
        self._lines: list[str] = []  # of this turn: at most what a turn serves
        self._retry = reactor.countdown(RETRY_S, TurnWriter.flush)

    def put(self, line: str) -> None:
        """At the end of this turn."""
        if not self._lines:
            self._reactor.flush_last(self)
        self._lines.append(line)

    def write(self, line: str) -> None:
        """At the `flush` that follows."""
        self._hand_over()
        self._sink.write(line)

    def _hand_over(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._sink.write_all(lines)

    def flush(self) -> None:
        self._hand_over()
        self._sink.flush()
        if self._sink.waiting_bytes:
            self._retry.start(self)

    def finish(self) -> None:
        """The process is about to end: what a slow reader takes in a second is not lost."""
        self._hand_over()
        for _ in range(FINISH_TRIES_MAX):
            self._sink.flush()
            if not self._sink.waiting_bytes:
                return
            time.sleep(FINISH_EVERY_S)

    @property
    def dropped(self) -> int:
        return self._sink.dropped

    def on_bug(self) -> None:
        """The next line tries again."""


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a connection as text, and what the text was made of."""

    workload: Workload | None
    identity: SpiffeId | None
    service: Service | None
    target: Endpoint | None
    text: str


class AccessLog:
    def __init__(self, clock: Clock, put: Callable[[str], None], style: Style) -> None:
        self._clock = clock
        self._put = put
        self._style = style
        self._ends: dict[tuple[str, str, int], _End] = {}
        self._second_began_s = -math.inf  # by the monotonic clock
        self._second_text = ""

    def opened(self, parties: Parties) -> None:
        if scope.isEnabledFor(logging.DEBUG):
            now_s = self._clock.monotonic_s()
            self._write(now_s, "debug", "connection opened", parties, 0, 0, "")

    def closed(
        self,
        parties: Parties,
        received: int,
        sent: int,
        opened_s: float,
        flag: Flag,
        error: str,
    ) -> None:
        """Bytes as the client sees them: what the server received from it, and sent to it."""
        level, name = logging.INFO, "info"
        if error:
            level, name = logging.ERROR, "error"
            if flag is Flag.DENY:
                level, name = logging.WARNING, "warning"
        if not scope.isEnabledFor(level):
            return
        now_s = self._clock.monotonic_s()
        more = self._style.duration % round((now_s - opened_s) * 1000)
        if parties.direct:
            more += self._style.direct
            if parties.measured is not None:
                more += self._style.measured % parties.measured
        if error:
            more += self._style.pairs({"error": error})
        self._write(now_s, name, "connection complete", parties, received, sent, more)

    def _write(
        self,
        now_s: float,
        level: str,
        message: str,
        parties: Parties,
        received: int,
        sent: int,
        more: str,
    ) -> None:
        """The line's bytes are those of the local workload: what it sent, what it received."""
        if parties.reporter is Reporter.DESTINATION:
            received, sent = sent, received
        memo = parties.memo
        if memo is None:
            middle = self._middle(parties)
        else:
            middle = memo.log_text
            if not middle:
                middle = memo.log_text = self._middle(parties)
        style = self._style
        self._put(
            style.line(
                self._stamp(now_s),
                level,
                message,
                endpoint_text(parties.source_address),
                middle,
                received,
                sent,
                more,
            )
        )

    def _stamp(self, now_s: float) -> str:
        """`stamp(now)`. The wall clock is asked once a second, the text of the second is made
        then, and the monotonic clock says how far into it we are: a tenth of the work."""
        since_s = now_s - self._second_began_s
        if not 0.0 <= since_s < 1.0:
            now = self._clock.now()
            since_s = now.microsecond / 1e6
            self._second_began_s = now_s - since_s
            self._second_text = stamp(now)[:19]
        micros = int(since_s * 1e6 + 0.5)
        return f"{self._second_text}.{min(micros, 999_999):06d}Z"

    def _middle(self, p: Parties) -> str:
        return self._style.middle % (
            self._end("src", p.source, p.source_identity, None, None),
            p.destination_address,
            self._end("dst", p.destination, p.destination_identity, p.service, p.target),
            "outbound" if p.reporter is Reporter.SOURCE else "inbound",
        )

    def _end(
        self,
        side: str,
        workload: Workload | None,
        identity: SpiffeId | None,
        service: Service | None,
        target: Endpoint | None,
    ) -> str:
        key = (side, workload.uid if workload else "", target.port if target else 0)
        kept = self._ends.get(key)
        if (
            kept is not None
            and kept.workload is workload
            and kept.service is service
            and kept.identity == identity
            and kept.target == target
        ):
            return kept.text
        if len(self._ends) >= ENDS_KEPT_MAX:
            self._ends.clear()
        text = self._style.pairs(_end_fields(side, workload, identity, service, target))
        self._ends[key] = _End(workload, identity, service, target, text)
        return text


def _end_fields(
    side: str,
    workload: Workload | None,
    identity: SpiffeId | None,
    service: Service | None,
    target: Endpoint | None,
) -> dict[str, object]:
    fields: dict[str, object] = {}
    if target is not None:
        fields[f"{side}.hbone_addr"] = target
    if service is not None:
        fields[f"{side}.service"] = service.hostname
    if workload is not None:
        fields[f"{side}.workload"] = workload.name
        fields[f"{side}.namespace"] = workload.namespace
    if identity is not None:
        fields[f"{side}.identity"] = identity
    if workload is not None:
        fields[f"{side}.cluster"] = workload.cluster_id
    return fields
