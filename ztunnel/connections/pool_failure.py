"""Answers of the pool to a connection that gets no tunnel: the reason and the words for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.refusals import Flag, Reason
from ztunnel.transport.ends import TunnelEnd


@dataclass(frozen=True, slots=True)
class PoolFailure:
    reason: Reason
    detail: str
    flag: Flag


_FAILURES: Final = {
    TunnelEnd.TLS: Reason.TLS_FAILED,
    TunnelEnd.REJECTED: Reason.TLS_FAILED,
    TunnelEnd.PROTOCOL: Reason.HTTP2_FAILED,
    TunnelEnd.HANDSHAKE_TIMEOUT: Reason.HANDSHAKE_TIMEOUT,
}


def failure(reason: Reason, detail: str) -> PoolFailure:
    return PoolFailure(reason, detail, reason.flag)


def failure_of(end: TunnelEnd | None, detail: str) -> PoolFailure:
    """The failure of a stream whose tunnel ended before its request was answered."""
    reason = _FAILURES.get(end or TunnelEnd.CUT, Reason.TUNNEL_LOST)
    text = (end or TunnelEnd.CUT).value
    return failure(reason, f"{text}: {detail}" if detail else text)
