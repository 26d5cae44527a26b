"""Asks the API server about projected service account tokens (TokenReview), and remembers.

A good token is asked about again after a minute, so that one of a pod that is gone is not good for
long; a bad one after some seconds. While the API server cannot be asked, a token is taken if it is
good as far as can be told without it (`outage`): pods do not go away through an API that is away,
and nodes need certificates meanwhile. Any other is put off. Every question is paid for by whoever
showed the token, and one at a time is asked about the same token.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Protocol

import msgspec

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import PODS, TOKEN_REVIEWS
from control.server.callers.accounts import (
    BoundPod,
    NodeAccounts,
    ReviewStatus,
    TokenLife,
    looked_at,
    vouched,
)
from control.server.callers.budget import REVIEWING, REVIEWS, Paces, Tenant
from control.server.callers.outage import KnownCallers, KnownToken
from control.server.callers.refusals import CallRefusal
from control.server.callers.revocations import fingerprint
from control.server.callers.tokens import TOKEN_CHARS_MAX, Caller, Unauthenticated, Undecided
from control.server.callers.turns import Turns
from control.server.metrics import Metrics

log = logging.getLogger("access")

GOOD_S = 60.0  # a pod that is gone speaks for its node for this long at most
BAD_S = 5.0  # longer than a client that tries again at once, shorter than anybody waits
ASK_S = 8.0  # the caller's own deadline is 10 s
AWAY_S = 1.0  # no question after one that failed
BAD_TOKENS_MAX = 4096


class Asks(Protocol):
    async def status(self, token: str) -> ReviewStatus:
        """The API server's word on a token. Raises MeshError."""

    async def node_of(self, pod: BoundPod) -> str:
        """Node of a pod, empty when there is no such pod. Raises MeshError."""


class TokenReviews:
    def __init__(
        self,
        asks: Asks,
        accounts: NodeAccounts,
        known: KnownCallers,
        *,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._asks = asks
        self._accounts = accounts
        self._known = known
        self._metrics = metrics
        self._clock = clock
        self._bad: OrderedDict[str, tuple[CallRefusal, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Event] = {}
        self._pace = Paces(REVIEWS)
        self._turns = Turns(REVIEWING)
        self._away_until = 0.0
        self._is_away = False

    async def authenticate(self, token: str, payer: Tenant) -> Caller:
        if len(token) > TOKEN_CHARS_MAX:
            raise Unauthenticated(CallRefusal.TOKEN_TOO_LONG)
        life = looked_at(token, self._accounts, self._known.expired_s)
        key = fingerprint(token)
        while True:
            if (caller := self._remembered(token, key)) is not None:
                return caller
            if life.expires_s <= self._clock.now().timestamp():
                # In an outage or just after one: no API server vouches for it any more.
                return self._lent_or(token, key, CallRefusal.REVIEWS_AWAY)
            if (asking := self._asking.get(key)) is None:
                break
            await asking.wait()
        if not self._pace.allow(payer, self._clock.monotonic_s()):
            return self._lent_or(token, key, CallRefusal.REVIEWS_RATE)
        done = self._asking[key] = asyncio.Event()
        try:
            return await self._asked(token, key, life, payer)
        finally:
            del self._asking[key]
            done.set()

    def _remembered(self, token: str, key: str) -> Caller | None:
        now_s = self._clock.monotonic_s()
        good = self._known.get(key)
        if good is not None and now_s < good.fresh_until:
            return good.caller
        why, until_s = self._bad.get(key, (CallRefusal.TOKEN_REVIEW, 0.0))
        if now_s < until_s:
            raise Unauthenticated(why)
        if now_s < self._away_until:
            return self._lent_or(token, key, CallRefusal.REVIEWS_AWAY)
        return None

    def _lent_or(self, token: str, key: str, why: CallRefusal) -> Caller:
        """The caller of a token that is good as far as can be told now."""
        caller = self._known.lent(token, key)
        if caller is None:
            raise Undecided(why)
        return caller

    async def _asked(self, token: str, key: str, life: TokenLife, payer: Tenant) -> Caller:
        try:
            async with asyncio.timeout(ASK_S), self._turns.turn(payer):
                status = await self._asks.status(token)
                caller = await self._caller(status, life, key)
        except Unauthenticated as exc:
            self._answered("refused")
            self._known.drop(key)
            self._bad[key] = (exc.why, self._clock.monotonic_s() + BAD_S)
            if len(self._bad) > BAD_TOKENS_MAX:
                self._bad.popitem(last=False)
            raise
        except (MeshError, TimeoutError) as exc:
            self._failed(exc)
            return self._lent_or(token, key, CallRefusal.REVIEWS_AWAY)
        self._answered("vouched")
        fresh_until = self._clock.monotonic_s() + GOOD_S
        self._known.put(key, KnownToken(caller, fresh_until, life.expires_s))
        return caller

    async def _caller(self, status: ReviewStatus, life: TokenLife, key: str) -> Caller:
        pod = vouched(status, self._accounts)
        node = pod.node or await self._asks.node_of(pod)
        if not node:
            raise Unauthenticated(CallRefusal.TOKEN_NODE)
        subject = status.user.username
        waypoint = self._accounts.speaks_for(subject)
        return Caller(node, subject, life.issued_s, key, life.expires_s, waypoint)

    def _answered(self, result: str) -> None:
        self._metrics.token_reviews.labels(result).inc()
        if self._is_away:
            self._is_away = False
            event(log, logging.INFO, "token_reviews.back")

    def _failed(self, exc: Exception) -> None:
        self._metrics.token_reviews.labels("failed").inc()
        wait_s = (exc.retry_after_s or AWAY_S) if isinstance(exc, ApiError) else AWAY_S
        self._away_until = self._clock.monotonic_s() + min(wait_s, GOOD_S)
        if not self._is_away:
            self._is_away = True
            event(log, logging.ERROR, "token_reviews.failed", error=str(exc) or "no answer in time")


class _Review(msgspec.Struct):
    status: ReviewStatus


class _Spec(msgspec.Struct):
    node: str = msgspec.field(default="", name="nodeName")


class _Metadata(msgspec.Struct):
    uid: str = ""


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


class ClusterReviews:
    """The questions, as calls of one cluster's API."""

    def __init__(self, client: KubeClient, audience: str) -> None:
        self._client = client
        self._audience = audience

    async def status(self, token: str) -> ReviewStatus:
        asked = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [self._audience]},
        }
        return (await self._client.create(TOKEN_REVIEWS.path(), asked, _Review)).status

    async def node_of(self, pod: BoundPod) -> str:
        try:
            found = await self._client.get(PODS.path(pod.namespace, pod.name), _Pod)
        except ApiError as exc:
            if exc.code == 404:
                return ""
            raise
        return found.spec.node if found.metadata.uid == pod.uid else ""
