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
from control.server.ca.authorities import Authorities
from control.server.ca.issuer import (
    CSR_BYTES_MAX,
    Refused,
    check_request,
    issue_leaf,
    leaf_ttl,
)
from control.server.callers.budget import CERTIFICATES, SIGNING, Paces
from control.server.callers.door import AdmittedCall, Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller
from control.server.callers.turns import Turns
from control.server.metrics import Metrics
from control.wire import certificates_pb2 as pb

log = logging.getLogger("ca")

CSR_MESSAGE_BYTES_MAX = CSR_BYTES_MAX + 4096  # the request in PEM, and what is said about it
PACE_WAIT_S = 5.0  # longest wait of a request over its node's pace; then it is refused

Runs = Callable[[str, SpiffeId], bool]


class CertificateService:
    """`runs(node, identity)` says if a pod with this identity runs on this node. A node may have
    the identities of its pods, a waypoint its own alone, where it runs."""

    def __init__(
        self,
        authorities: Authorities,
        trust_domain: str,
        ttl_max: timedelta,
        runs: Runs,
        *,
        door: Door,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._authorities = authorities
        self._trust_domain = trust_domain
        self._ttl_max = ttl_max
        self._runs = runs
        self._door = door
        self._metrics = metrics
        self._clock = clock
        self._pace = Paces(CERTIFICATES)
        self._turns = Turns(SIGNING)

    async def create(self, data: bytes, call: AdmittedCall, context: Context) -> bytes:
        """Sign one request, when it is its node's turn."""
        wait_s = self._pace.wait_s(call.tenant, self._clock.monotonic_s())
        if wait_s > PACE_WAIT_S:
            await self._door.exhausted(context, call, "csr", CallRefusal.CERTIFICATES_RATE)
        self._pace.spend(call.tenant, 1, self._clock.monotonic_s())
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        try:
            async with self._turns.turn(call.tenant):
                return await asyncio.to_thread(self._sign, data, call.caller)
        except Refused as exc:
            code = grpc.StatusCode.UNAUTHENTICATED
            await self._door.refuse(context, call, "csr", code, "unauthenticated", exc.why)

    def _sign(self, data: bytes, caller: Caller) -> bytes:
        """Runs in another thread: reads only what never changes, or is replaced as a whole."""
        try:
            message = pb.IstioCertificateRequest.FromString(data)
        except DecodeError as exc:
            raise Refused(CallRefusal.MESSAGE_MALFORMED) from exc
        field = message.metadata.fields.get("ImpersonatedIdentity")
        impersonated = field.string_value if field is not None else ""
        request = check_request(message.csr, impersonated, self._trust_domain)
        identity, waypoint = request.identity, caller.waypoint
        own = identity.namespace, identity.service_account
        if waypoint is not None and own != waypoint:
            raise Refused(CallRefusal.NOT_ITS_OWN)
        if not self._runs(caller.node, identity):
            raise Refused(CallRefusal.NO_SUCH_POD_ON_NODE)
        ttl = leaf_ttl(message.validity_duration, self._ttl_max)
        authority = self._authorities.current
        leaf = issue_leaf(authority, request, ttl, self._clock.now())
        self._metrics.csr.labels("signed", "").inc()
        event(
            log,
            logging.INFO,
            "csr.signed",
            identity=identity,
            **caller.words,
            ttl_s=int(ttl.total_seconds()),
        )
        return pb.IstioCertificateResponse(
            cert_chain=[leaf, *authority.chain_pem]
        ).SerializeToString()
