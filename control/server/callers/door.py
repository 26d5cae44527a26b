"""The door of every gRPC method: who calls, and how a refusal is answered, counted and logged."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc

from control.kit.log import event
from control.server.callers.tokens import Authenticator, Caller, Unauthenticated, bearer_token
from control.server.metrics import Metrics

log = logging.getLogger("access")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class Door:
    authenticator: Authenticator
    metrics: Metrics

    async def admit(self, context: Context, method: str) -> Caller:
        """The caller, or an answer UNAUTHENTICATED that tells it nothing."""
        headers = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        try:
            token = bearer_token(headers.get("authorization", ""))
            return await self.authenticator.authenticate(token)
        except Unauthenticated as exc:
            await self.refuse(
                context,
                method,
                grpc.StatusCode.UNAUTHENTICATED,
                "unauthenticated",
                reason=exc.detail,
            )

    async def refuse(
        self,
        context: Context,
        method: str,
        code: grpc.StatusCode,
        message: str,
        **fields: object,
    ) -> NoReturn:
        """End the call. `message` is for the caller, `fields` (with `reason`) for us."""
        reason = str(fields.get("reason", code.name.lower()))
        if method == "csr":
            self.metrics.csr.labels("refused", reason).inc()
        else:
            self.metrics.refused.labels(method, reason).inc()
        event(log, logging.WARNING, f"{method}.refused", peer=context.peer(), **fields)
        await context.abort(code, message)
        raise AssertionError("abort() does not return")
