"""Service accounts of nodes and waypoints: reads a projected token's claims, and what an API server
says of it.

Pure. The claims prove nothing before the API server has vouched for them; they only spare it tokens
that could not be good, and say until when a good one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from control.model.route import WaypointKey
from control.server.callers.refusals import CallRefusal
from control.server.callers.speakers import IsWaypoint, no_waypoint, subject, waypoint_of
from control.server.callers.tokens import AUDIENCE, Unauthenticated, unverified_claims

_EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class NodeAccounts:
    """`subjects`: accounts whose pods speak for their node, as
    `system:serviceaccount:NAMESPACE:NAME`. Beside them those of waypoints are let in, for as long
    as they are some."""

    subjects: frozenset[str]
    audience: str = AUDIENCE
    is_waypoint: IsWaypoint = no_waypoint

    def speaks_for(self, subject: str) -> WaypointKey | None:
        """The waypoint that an account speaks for; None: for its node. Unauthenticated: neither."""
        if subject in self.subjects:
            return None
        found = waypoint_of(subject, self.is_waypoint)
        if found is None:
            raise Unauthenticated(CallRefusal.TOKEN_SUBJECT)
        return found

    def has(self, subject: str) -> bool:
        return subject in self.subjects or waypoint_of(subject, self.is_waypoint) is not None


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


def node_accounts(
    namespace: str, names: tuple[str, ...], audience: str, is_waypoint: IsWaypoint = no_waypoint
) -> NodeAccounts:
    """Accounts by `NAME`, in the namespace of the install, or by `NAMESPACE/NAME`."""
    split = (each.rpartition("/") for each in names)
    return NodeAccounts(
        frozenset(subject(where or namespace, name) for where, _, name in split),
        audience,
        is_waypoint,
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
    accounts.speaks_for(claims.sub)
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
    accounts.speaks_for(user.username)
    name, uid = user.said("pod-name"), user.said("pod-uid")
    if not name or not uid:
        raise Unauthenticated(CallRefusal.TOKEN_POD)
    return BoundPod(user.username.split(":")[2], name, uid, user.said("node-name"))
