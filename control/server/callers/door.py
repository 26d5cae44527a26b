"""Door of every gRPC method: finds out who calls; answers, counts and logs refusals."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc

from control.kit.log import event
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Authenticator, Caller, Unauthenticated, bearer_token
from control.server.metrics import Metrics

log = logging.getLogger("access")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Door:
    authenticator: Authenticator
    metrics: Metrics

    async def admit(self, context: Context, method: str) -> Caller:
        """The verified caller. Anybody else gets UNAUTHENTICATED and no word about why."""
        headers = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        try:
            token = bearer_token(headers.get("authorization", ""))
            return await self.authenticator.authenticate(token)
        except Unauthenticated as exc:
            code = grpc.StatusCode.UNAUTHENTICATED
            await self.refuse(context, method, code, "unauthenticated", exc.why)

    async def refuse(
        self,
        context: Context,
        method: str,
        code: grpc.StatusCode,
        message: str,
        why: CallRefusal,
        **fields: object,
    ) -> NoReturn:
        """End the call. The caller hears `message`; `why` and `fields` are for us."""
        if method == "csr":
            self.metrics.csr.labels("refused", why.word).inc()
        else:
            self.metrics.refused.labels(method, why.word).inc()
        event(log, logging.WARNING, f"{method}.refused", peer=context.peer(), reason=why, **fields)
        await context.abort(code, message)
        raise AssertionError("abort() does not return")
