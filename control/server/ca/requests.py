"""Signs certificates for callers that may have them. Everybody else gets one opaque no."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import grpc
from google.protobuf.message import DecodeError

from control.kit.clock import Clock
from control.kit.log import event
from control.model.identity import SpiffeId
from control.server.ca.issuer import Refused, check_request, issue_leaf, leaf_ttl
from control.server.ca.keys import Authority
from control.server.callers.door import Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller
from control.server.metrics import Metrics
from control.wire import certificates_pb2 as pb

log = logging.getLogger("ca")

SIGNING_MAX = 2  # at once; each takes some hundred microseconds in a thread of its own
WAITING_MAX = 256  # a node asks for at most 8 at a time

MayHave = Callable[[str, SpiffeId], bool]


class CertificateService:
    """`may_have(node, identity)` says if a pod with this identity runs on this node."""

    def __init__(
        self,
        authority: Authority,
        trust_domain: str,
        ttl_max: timedelta,
        may_have: MayHave,
        *,
        door: Door,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._trust_domain = trust_domain
        self._ttl_max = ttl_max
        self._may_have = may_have
        self._door = door
        self._metrics = metrics
        self._clock = clock
        self._signing = asyncio.Semaphore(SIGNING_MAX)
        self._waiting = 0

    async def create(self, data: bytes, context: Context) -> bytes:
        caller = await self._door.admit(context, "csr")
        if self._waiting >= WAITING_MAX:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await self._door.refuse(context, "csr", code, "try again", CallRefusal.BUSY)
        self._waiting += 1
        try:
            async with self._signing:
                return await asyncio.to_thread(self._sign, data, caller)
        except Refused as exc:
            code = grpc.StatusCode.UNAUTHENTICATED
            await self._door.refuse(
                context, "csr", code, "unauthenticated", exc.why, node=caller.node
            )
        finally:
            self._waiting -= 1

    def _sign(self, data: bytes, caller: Caller) -> bytes:
        """Runs in another thread: reads only what never changes, or is replaced as a whole."""
        try:
            message = pb.IstioCertificateRequest.FromString(data)
        except DecodeError as exc:
            raise Refused(CallRefusal.MESSAGE_MALFORMED) from exc
        field = message.metadata.fields.get("ImpersonatedIdentity")
        impersonated = field.string_value if field is not None else ""
        request = check_request(message.csr, impersonated, self._trust_domain)
        if not self._may_have(caller.node, request.identity):
            raise Refused(CallRefusal.NO_SUCH_POD_ON_NODE)
        ttl = leaf_ttl(message.validity_duration, self._ttl_max)
        leaf = issue_leaf(self._authority, request, ttl, self._clock.now())
        self._metrics.csr.labels("signed", "").inc()
        event(
            log,
            logging.INFO,
            "csr.signed",
            identity=request.identity,
            node=caller.node,
            ttl_s=int(ttl.total_seconds()),
        )
        return pb.IstioCertificateResponse(
            cert_chain=[leaf, self._authority.root_pem]
        ).SerializeToString()
