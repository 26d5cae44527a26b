"""Door of every gRPC method: finds out who calls and what it may use; answers refusals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc

from control.server.callers.arrivals import Arrival, Arrivals
from control.server.callers.budget import CALLS, Shares, Tenant
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import (
    Authenticator,
    Caller,
    Unauthenticated,
    Undecided,
    bearer_token,
)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# The relay's end of a connection to gRPC, as gRPC names it (see `peer_name`).
_PEER = re.compile(r"unix-abstract:tulle-control-[0-9]+-([0-9]+)")


# gRPC cancels a call whose client went away, a moment after it could not write to it.
GONE_S = 5.0


async def client_gone() -> None:
    """Wait for the end that gRPC makes of a call whose client went away. To end it ourselves would
    be one more write that fails, and a stack trace in the log for each."""
    await asyncio.sleep(GONE_S)


async def abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    try:
        await context.abort(code, message)
    except grpc.aio.InternalError:
        await client_gone()
        raise
    raise AssertionError("abort() does not return")


def peer_name(process: int, number: int) -> str:
    """The abstract socket name of an arrival's connection to gRPC. Nobody else can have it while
    that connection lives, so a call is found back to its arrival, and only to its own."""
    return f"\0tulle-control-{process}-{number}"


@dataclass(frozen=True, slots=True)
class AdmittedCall:
    """A call that was let in."""

    caller: Caller
    tenant: Tenant
    address: str
    is_sending: Callable[[], bool] = bool  # a large message is on its way in
    taken: Callable[[], object] = bool  # to be called when a message was taken from gRPC


class Door:
    def __init__(self, authenticator: Authenticator, arrivals: Arrivals) -> None:
        self._authenticator = authenticator
        self._arrivals = arrivals
        self.calls = Shares(CALLS)
        self._under_way: dict[asyncio.Timeout, Caller] = {}
        self._ended: dict[asyncio.Timeout, CallRefusal] = {}

    def end(self, why_over: Callable[[Caller], CallRefusal | None]) -> None:
        """End the calls of callers that may not call any more."""
        for timeout, caller in self._under_way.items():
            # One that was told before may take a while to leave.
            if not timeout.expired() and (why := why_over(caller)) is not None:
                self._ended[timeout] = why
                timeout.reschedule(0.0)

    @asynccontextmanager
    async def admitted(
        self, context: Context, method: str, *, nodes_only: bool = False
    ) -> AsyncIterator[AdmittedCall]:
        """Let a call in by its token, before a byte of its messages is read. It holds one of its
        tenant's calls inside the block. Refusals end the call with an answer that tells nothing.
        `nodes_only`: a waypoint's token is none for this method."""
        arrival = self._arrival(context)
        if arrival is None:  # the connection went away, or it is not one of ours
            await abort(context, grpc.StatusCode.CANCELLED, "")
        caller = await self._authenticate(context, arrival, method)
        call = AdmittedCall(
            caller,
            caller.tenant,
            arrival.address,
            lambda: arrival.is_sending,
            lambda: arrival.taken(),
        )
        if nodes_only and caller.waypoint is not None:
            code = grpc.StatusCode.PERMISSION_DENIED
            await self.refuse(
                context, call, method, code, "not for waypoints", CallRefusal.NOT_A_NODE
            )
        if not self._arrivals.admit(arrival, caller.tenant, caller.group):
            await self.exhausted(context, call, method, CallRefusal.CONNECTIONS_MAX)
        if not self.calls.take(call.tenant):
            await self.exhausted(context, call, method, CallRefusal.CALLS_MAX)
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._under_way[timeout] = caller
                yield call
        except TimeoutError:
            if not timeout.expired():
                raise
            code = grpc.StatusCode.UNAUTHENTICATED
            why = self._ended.get(timeout, CallRefusal.TOKEN_REVOKED)
            await self.refuse(context, call, method, code, "unauthenticated", why)
        finally:
            self._under_way.pop(timeout, None)
            self._ended.pop(timeout, None)
            self.calls.give(call.tenant)

    def _arrival(self, context: Context) -> Arrival | None:
        found = _PEER.fullmatch(context.peer())
        return None if found is None else self._arrivals.get(int(found[1]))

    async def _authenticate(self, context: Context, arrival: Arrival, method: str) -> Caller:
        headers = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        try:
            token = bearer_token(headers.get("authorization", ""))
            return await self._authenticator.authenticate(token, arrival.tenant)
        except Undecided as exc:  # no bad token: it does not count against the connection
            self._arrivals.refused(arrival.tenant, method, exc.why, peer=arrival.address)
            await abort(context, grpc.StatusCode.UNAVAILABLE, "try again")
        except Unauthenticated as exc:
            arrival.refused_calls += 1
            self._arrivals.refused(arrival.tenant, method, exc.why, peer=arrival.address)
            await abort(context, grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")

    async def exhausted(
        self, context: Context, call: AdmittedCall, method: str, why: CallRefusal
    ) -> NoReturn:
        """The caller uses up all it may have."""
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        await self.refuse(context, call, method, code, "try again", why)

    async def refuse(
        self,
        context: Context,
        call: AdmittedCall,
        method: str,
        code: grpc.StatusCode,
        message: str,
        why: CallRefusal,
        **fields: object,
    ) -> NoReturn:
        """End the call. The caller hears `message`; `why` and `fields` are for us."""
        fields = {**call.caller.words, **fields}
        self._arrivals.refused(call.tenant, method, why, peer=call.address, **fields)
        await abort(context, code, message)
