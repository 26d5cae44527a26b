"""Access to the control plane: the trusted roots, and the metadata that authenticates a call."""

from __future__ import annotations

from pathlib import Path

from control.kit.errors import ConfigError, ControlError
from control.wire.channel import bearer, holds_roots, read_token
from ztunnel.config import LiteralToken, read_roots

CONNECT_TIMEOUT_S = 5.0


class RootsUnreadable(ControlError):
    reason = "roots_unreadable"


def roots_pem(roots: str) -> bytes | None:
    """The roots in PEM, read at each use: the file may be replaced, or not be there yet."""
    try:
        pem = read_roots(roots)
    except ConfigError as exc:
        raise RootsUnreadable(str(exc)) from exc
    if pem is not None and not holds_roots(pem):
        raise RootsUnreadable(f"no root certificate in PEM: {roots.partition(chr(10))[0]}")
    return pem


def call_metadata(
    token: Path | LiteralToken | None, cluster_id: str
) -> tuple[tuple[str, str], ...]:
    """Metadata that authenticates a call; TokenUnreadable: the token cannot be read."""
    clusterid = ("clusterid", cluster_id)
    match token:
        case None:
            return (clusterid,)
        case LiteralToken():
            return (bearer(token.secret), clusterid)
        case Path():
            return (bearer(read_token(token)), clusterid)
