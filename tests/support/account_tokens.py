"""Projected service account tokens without a cluster: claims, and nobody's signature."""

from __future__ import annotations

import base64
import json
from typing import Any

from control.server.callers.accounts import NodeAccounts, ReviewedUser, ReviewStatus
from control.server.callers.speakers import subject

ZTUNNEL = subject("tulle-system", "tulle-ztunnel")
ACCOUNTS = NodeAccounts(frozenset({ZTUNNEL, subject("tulle-system", "tulle-agent")}))
EXTRA = "authentication.kubernetes.io/"


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def account_token(expires_s: float, number: int = 0, **claims: Any) -> str:
    """`claims` replace those of a good one."""
    made = {"aud": ["istio-ca"], "exp": expires_s, "sub": ZTUNNEL, "jti": str(number), **claims}
    return f"{part({'alg': 'ES256', 'kid': 'k'})}.{part(made)}.{part(b's' * 64)}"


def status(**changes: Any) -> ReviewStatus:
    """A yes for the ztunnel of n1, with changes: extras by their short name, or fields."""
    extra = {"node-name": ["n1"], "pod-name": ["z1"], "pod-uid": ["u1"]}
    for name in list(changes):
        if (short := name.replace("_", "-")) in extra:
            extra[short] = changes.pop(name)
    username = changes.pop("username", ZTUNNEL)
    user = ReviewedUser(username, {EXTRA + name: each for name, each in extra.items()})
    made: dict[str, Any] = {"authenticated": True, "user": user, "audiences": ["istio-ca"]}
    made.update(changes)
    return ReviewStatus(**made)
