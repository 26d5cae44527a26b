"""Service accounts of nodes: reads a projected token's claims, and an API server's word on it.

Pure. The claims prove nothing before the API server has vouched for them; they only spare it tokens
that could not be good, and say until when a good one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import AUDIENCE, Unauthenticated, unverified_claims

_EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class NodeAccounts:
    """Accounts whose pods speak for their node, as `system:serviceaccount:NAMESPACE:NAME`."""

    subjects: frozenset[str]
    audience: str = AUDIENCE


class _Claims(msgspec.Struct):
    sub: str = ""
    aud: str | list[str] = ""
    exp: float = 0.0
    iat: float = 0.0


class ReviewedUser(msgspec.Struct):
    username: str = ""
    extra: dict[str, list[str]] = {}

    def said(self, what: str) -> str:
        """The one value of an extra, or nothing."""
        found = self.extra.get(_EXTRA + what, [])
        return found[0] if len(found) == 1 else ""


class ReviewStatus(msgspec.Struct):
    authenticated: bool = False
    user: ReviewedUser = msgspec.field(default_factory=ReviewedUser)
    audiences: list[str] = []
    error: str = ""


@dataclass(frozen=True, slots=True)
class BoundPod:
    """The pod that a token is bound to. API servers before 1.30 do not name its node."""

    namespace: str
    name: str
    uid: str
    node: str


def subject(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def node_accounts(namespace: str, names: tuple[str, ...], audience: str) -> NodeAccounts:
    """Accounts by `NAME`, in the namespace of the install, or by `NAMESPACE/NAME`."""
    split = (each.rpartition("/") for each in names)
    return NodeAccounts(
        frozenset(subject(where or namespace, name) for where, _, name in split), audience
    )


@dataclass(frozen=True, slots=True)
class TokenLife:
    issued_s: int
    expires_s: float


def looked_at(token: str, accounts: NodeAccounts, now_s: float) -> TokenLife:
    """The token's life as it says itself. Unauthenticated: no API server could make it one of
    ours."""
    try:
        claims = msgspec.json.decode(unverified_claims(token), type=_Claims)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED) from exc
    if claims.exp <= now_s:
        raise Unauthenticated(CallRefusal.TOKEN_EXPIRED)
    if accounts.audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
        raise Unauthenticated(CallRefusal.TOKEN_AUDIENCE)
    if claims.sub not in accounts.subjects:
        raise Unauthenticated(CallRefusal.TOKEN_SUBJECT)
    if not 0 <= claims.iat <= claims.exp < math.inf:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED)
    return TokenLife(int(claims.iat), claims.exp)


def vouched(status: ReviewStatus, accounts: NodeAccounts) -> BoundPod:
    """The pod that the API server says has shown this token; Unauthenticated: it says no."""
    if not status.authenticated:
        raise Unauthenticated(CallRefusal.TOKEN_REVIEW)
    # An API server that knows no audiences says yes to every token, and names none.
    if accounts.audience not in status.audiences:
        raise Unauthenticated(CallRefusal.TOKEN_AUDIENCE)
    user = status.user
    if user.username not in accounts.subjects:
        raise Unauthenticated(CallRefusal.TOKEN_SUBJECT)
    name, uid = user.said("pod-name"), user.said("pod-uid")
    if not name or not uid:
        raise Unauthenticated(CallRefusal.TOKEN_POD)
    return BoundPod(user.username.split(":")[2], name, uid, user.said("node-name"))
