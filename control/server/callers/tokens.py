"""Makes and checks node tokens (JWT, HS256). Other verifiers of callers fit the Protocol.

A node token says that its holder speaks for this node's ztunnel and agent, or is what runs there of
a waypoint. It is for machines outside a cluster; inside one, the API server is asked about
projected service account tokens (`reviews`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from control.kit.clock import Clock
from control.kit.errors import ConfigError, PeerError
from control.model.route import WaypointKey
from control.server.callers.budget import Tenant, node_tenant, waypoint_tenant
from control.server.callers.refusals import CallRefusal
from control.server.callers.revocations import Revocations, fingerprint, one_token
from control.server.callers.speakers import IsWaypoint, account_of, no_waypoint, subject

AUDIENCE = "istio-ca"
TOKEN_CHARS_MAX = 8192
KEY_BYTES = 32
# A call under way goes on so long after its token: its caller takes the next one meanwhile.
OVERTIME_S = 60.0
_HEADER = {"alg": "HS256", "typ": "JWT"}


class Unauthenticated(PeerError):
    """A caller without a token that is good. It hears one opaque word; `why` is for us."""

    reason = "unauthenticated"

    def __init__(self, why: CallRefusal) -> None:
        super().__init__(why.word)
        self.why = why


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller: the agent or ztunnel of `node`, or what runs there of `waypoint`, which
    speaks for that alone."""

    node: str
    subject: str
    # All are of its token, for a revocation and for its end, in seconds of Unix time.
    issued_s: int = field(default=0, compare=False)
    mark: str = field(default="", compare=False)
    expires_s: float = field(default=math.inf, compare=False)
    waypoint: WaypointKey | None = None

    @property
    def tenant(self) -> Tenant:
        if self.waypoint is None:
            return node_tenant(self.node)
        return waypoint_tenant(self.node, self.waypoint)

    @property
    def group(self) -> Tenant | None:
        """All waypoints of its namespace, if it is one."""
        return None if self.waypoint is None else Tenant("namespace", self.waypoint.namespace)

    @property
    def words(self) -> dict[str, str]:
        """Fields of log lines: who it is by its token."""
        if self.waypoint is None:
            return {"node": self.node}
        return {"node": self.node, "waypoint": str(self.waypoint)}


class Undecided(PeerError):
    """A token of which nobody can say now if it is good: the caller may try again."""

    reason = "undecided"

    def __init__(self, why: CallRefusal) -> None:
        super().__init__(why.word)
        self.why = why


class Authenticator(Protocol):
    async def authenticate(self, token: str, payer: Tenant) -> Caller:
        """Caller that the token speaks for; Unauthenticated: it is not good; Undecided: ask again.
        `payer` pays for whatever has to be asked."""


def subject_of(root_namespace: str) -> str:
    """Subject of a node token: the ztunnel's service account, as in a cluster."""
    return subject(root_namespace, "ztunnel")


class NodeTokens:
    """Issues and verifies tokens with one key. Its repr does not show the key."""

    def __init__(
        self,
        key: bytes,
        subject: str,
        clock: Clock,
        revocations: Callable[[], Revocations] = Revocations,
        is_waypoint: IsWaypoint = no_waypoint,
    ) -> None:
        """`revocations` are those of the moment, and so are waypoints."""
        if len(key) < KEY_BYTES:
            raise ValueError("a token key has at least 32 bytes")
        self._key = key
        self._subject = subject
        self._clock = clock
        self._revocations = revocations
        self._is_waypoint = is_waypoint

    def __repr__(self) -> str:
        return f"NodeTokens(subject={self._subject!r})"

    def issue(self, node: str, ttl: timedelta, account: WaypointKey | None = None) -> str:
        """`account`: the token is a waypoint's account's, on this node. Raises ConfigError."""
        holder = self._subject if account is None else subject(*account)
        if account is not None and holder == self._subject:
            raise ConfigError(
                f"{account}: the account of ztunnels, which need no --service-account"
            )
        if not node or "/" in node or node.startswith(".") or not node.isprintable():
            raise ConfigError(f"not a node's name: {node!r}")
        now_s = int(self._clock.now().timestamp())
        claims = {
            "aud": AUDIENCE,
            "sub": holder,
            "node": node,
            "iat": max(now_s, self._revocations().nodes.get(node, 0) + 1),
            "exp": now_s + int(ttl.total_seconds()),
        }
        signed = f"{_encode_json(_HEADER)}.{_encode_json(claims)}"
        return f"{signed}.{_encode(self._sign(signed))}"

    def made(self, token: str) -> bool:
        """True for a token with our header, whatever its signature."""
        return token.partition(".")[0] == _encode_json(_HEADER)

    async def authenticate(self, token: str, payer: Tenant) -> Caller:
        caller = self._checked(self._read(token), fingerprint(token))
        if caller.expires_s <= self._clock.now().timestamp():
            raise Unauthenticated(CallRefusal.TOKEN_EXPIRED)
        if self.is_revoked(caller):
            raise Unauthenticated(CallRefusal.TOKEN_REVOKED)
        if self._is_stranger(caller):
            raise Unauthenticated(CallRefusal.TOKEN_SUBJECT)
        return caller

    def _is_stranger(self, caller: Caller) -> bool:
        """True for a waypoint's caller whose Gateway is gone."""
        return caller.waypoint is not None and not self._is_waypoint(caller.waypoint)

    def _read(self, token: str) -> dict[str, Any]:
        """The claims of a token that we signed."""
        if len(token) > TOKEN_CHARS_MAX:
            raise Unauthenticated(CallRefusal.TOKEN_TOO_LONG)
        signed, dot, signature = token.rpartition(".")
        # The signature is checked before anything inside is looked at.
        if not dot or not hmac.compare_digest(_decode(signature), self._sign(signed)):
            raise Unauthenticated(CallRefusal.TOKEN_SIGNATURE)
        header_text, dot, claims_text = signed.partition(".")
        if not dot or _decode_json(header_text) != _HEADER:
            raise Unauthenticated(CallRefusal.TOKEN_HEADER)
        return _decode_json(claims_text)

    def issued_s(self, token: str) -> int:
        """When it says that it was issued. Unauthenticated: it is not ours."""
        return self._checked(self._read(token), "").issued_s

    def revocation(self, token: str) -> Revocations:
        """The word that takes back this token. Unauthenticated: nobody could use it, or only by a
        clock that is set back."""
        claims = self._read(token)
        return one_token(token, int(self._checked(claims, "").expires_s))

    def why_over(self, caller: Caller) -> CallRefusal | None:
        """Reason to end a call of this caller that is under way."""
        if self.is_revoked(caller):
            return CallRefusal.TOKEN_REVOKED
        if self._is_stranger(caller):
            return CallRefusal.TOKEN_SUBJECT
        is_over = self._clock.now().timestamp() >= caller.expires_s + OVERTIME_S
        return CallRefusal.TOKEN_EXPIRED if is_over else None

    def is_revoked(self, caller: Caller) -> bool:
        """False for callers with tokens that are not ours."""
        return bool(caller.mark) and self._revocations().covers(
            caller.node, caller.issued_s, caller.mark
        )

    def _checked(self, claims: dict[str, Any], mark: str) -> Caller:
        expires, node = claims.get("exp"), claims.get("node")
        if not isinstance(expires, int):
            raise Unauthenticated(CallRefusal.TOKEN_EXPIRED)
        if claims.get("aud") != AUDIENCE:
            raise Unauthenticated(CallRefusal.TOKEN_AUDIENCE)
        holder, waypoint = claims.get("sub"), None
        if holder != self._subject:
            waypoint = account_of(holder) if isinstance(holder, str) else None
            if waypoint is None:
                raise Unauthenticated(CallRefusal.TOKEN_SUBJECT)
        if not isinstance(node, str) or not node:
            raise Unauthenticated(CallRefusal.TOKEN_NODE)
        issued_s = claims.get("iat")
        issued_s = issued_s if isinstance(issued_s, int) else 0
        return Caller(node, str(holder), issued_s, mark, expires, waypoint)

    def _sign(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class EitherTokens:
    """Node tokens of our own for machines outside the cluster, and everything else for `others`. A
    node whose tokens are revoked has none of either kind."""

    own: NodeTokens
    others: Authenticator

    async def authenticate(self, token: str, payer: Tenant) -> Caller:
        if self.own.made(token):
            return await self.own.authenticate(token, payer)
        caller = await self.others.authenticate(token, payer)
        if self.own.is_revoked(caller):
            raise Unauthenticated(CallRefusal.TOKEN_REVOKED)
        return caller


def unverified_claims(token: str) -> bytes:
    """JSON of the claims of a JWT as it has them itself. Unauthenticated: not a JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED)
    return _decode(parts[1])


def bearer_token(header: str) -> str:
    """`Bearer x` → `x`; Unauthenticated: anything else."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(CallRefusal.TOKEN_MISSING)
    return token.strip()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encode_json(value: dict[str, Any]) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED) from exc
    # RFC 7515 has no padding, and Python passes over spare bits: one token, one spelling.
    if _encode(data) != text:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED)
    return data


def _decode_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except ValueError as exc:
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED) from exc
    if not isinstance(value, dict):
        raise Unauthenticated(CallRefusal.TOKEN_MALFORMED)
    return value
