"""The door of every call: who gets in, and that a refusal is answered, counted and logged once."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import NoReturn

import grpc
import pytest

from control.model.route import WaypointKey
from control.server.callers import door
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import CALLS, node_tenant
from control.server.callers.door import AdmittedCall, Door
from control.server.callers.refusals import CallRefusal
from control.server.callers.tokens import Caller, NodeTokens
from control.server.metrics import Metrics
from tests.support.calls import Aborted, Call
from tests.support.clock import FakeClock

SUBJECT = "system:serviceaccount:istio-system:ztunnel"
TOKENS = NodeTokens(b"k" * 32, SUBJECT, FakeClock())


class Bench:
    """A door, and one connection that has come from 10.0.0.1."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.arrivals = Arrivals(self.metrics, FakeClock(), 100)
        self.door = Door(TOKENS, self.arrivals)
        self.closed: list[CallRefusal] = []
        self.arrival = self.arrivals.open("10.0.0.1", 40000, self.closed.append, lambda: None)

    def admit(self, call: Call, method: str = "xds") -> Caller:
        async def whole() -> Caller:
            async with self.door.admitted(call, method) as admitted:
                assert self.door.calls.held(admitted.tenant) == 1
                return admitted.caller

        return asyncio.run(whole())

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def bearer(node: str = "n1") -> str:
    return f"Bearer {TOKENS.issue(node, timedelta(hours=1))}"


def test_a_good_token_is_its_caller_and_the_connection_is_its_nodes(bench: Bench) -> None:
    assert bench.admit(Call(bearer())) == Caller("n1", SUBJECT)
    assert bench.arrival.tenant == node_tenant("n1")
    assert bench.admit(Call(bearer().replace("Bearer ", "bearer  ") + " ")) == Caller("n1", SUBJECT)
    assert bench.door.calls.total == 0


def test_a_call_of_no_connection_of_ours_is_let_in_by_no_token(bench: Bench) -> None:
    with pytest.raises(Aborted) as ended:
        bench.admit(Call(bearer(), arrival=2))
    assert ended.value.code is grpc.StatusCode.CANCELLED
    bench.arrivals.leave(bench.arrival)
    with pytest.raises(Aborted):
        bench.admit(Call(bearer()))


def test_the_calls_of_a_node_are_bounded_and_another_has_its_own(bench: Bench) -> None:
    for _ in range(CALLS.each):
        assert bench.door.calls.take(node_tenant("n1"))
    with pytest.raises(Aborted) as ended:
        bench.admit(Call(bearer()))
    assert ended.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert bench.count("tulle_control_refused_total", method="xds", reason="calls_max") == 1
    assert bench.admit(Call(bearer("n2"))).node == "n2"


@pytest.mark.parametrize("nodes_only", [True, False])
def test_what_is_for_nodes_only_takes_no_waypoints_token(nodes_only: bool) -> None:
    waypoint = WaypointKey("shop", "waypoint")
    tokens = NodeTokens(b"k" * 32, SUBJECT, FakeClock(), is_waypoint=lambda _: True)
    bench = Bench()
    bench.door = Door(tokens, bench.arrivals)
    bearers = [
        f"Bearer {tokens.issue('n1', timedelta(hours=1), each)}" for each in (None, waypoint)
    ]

    async def whole(header: str) -> WaypointKey | None:
        async with bench.door.admitted(Call(header), "m", nodes_only=nodes_only) as admitted:
            return admitted.caller.waypoint

    if nodes_only:
        with pytest.raises(Aborted) as ended:
            asyncio.run(whole(bearers[1]))
        assert ended.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert bench.count("tulle_control_refused_total", method="m", reason="not_a_node") == 1
        assert not bench.arrival.is_admitted
    else:
        assert asyncio.run(whole(bearers[1])) == waypoint
        assert bench.arrival.tenant.kind == "waypoint"
    assert asyncio.run(whole(bearers[0])) is None


def test_bad_tokens_are_counted_against_their_connection(bench: Bench) -> None:
    for _ in range(3):
        with pytest.raises(Aborted):
            bench.admit(Call("Bearer x"))
    assert bench.arrival.refused_calls == 3
    assert not bench.arrival.is_admitted


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "token_missing"),
        ("Basic eDp5", "token_missing"),
        ("Bearer x.y.AAAA", "token_signature"),
        (f"Bearer {TOKENS.issue('n1', timedelta(0))}", "token_expired"),
    ],
)
def test_anybody_else_is_told_nothing_and_we_are_told_why(
    bench: Bench, header: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(Aborted) as ended:
        bench.admit(Call(header))
    assert ended.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert ended.value.message == "unauthenticated"
    (record,) = caplog.records
    assert record.message == "xds.refused"
    assert str(record.fields["reason"]) == reason  # type: ignore[attr-defined]  # our own field
    assert bench.count("tulle_control_refused_total", method="xds", reason=reason) == 1


def test_a_header_of_bytes_is_no_token(bench: Bench) -> None:
    with pytest.raises(Aborted):
        bench.admit(Call(bearer().encode()))


@pytest.mark.parametrize(
    ("method", "name", "labels"),
    [
        ("csr", "tulle_control_csr_total", {"result": "refused"}),
        ("report", "tulle_control_refused_total", {"method": "report"}),
    ],
)
def test_each_refusal_is_counted_where_its_method_counts(
    bench: Bench, method: str, name: str, labels: dict[str, str]
) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    admitted = AdmittedCall(Caller("n1", SUBJECT), node_tenant("n1"), "10.0.0.1:40000")
    with pytest.raises(Aborted, match="try again") as ended:
        asyncio.run(bench.door.exhausted(Call(), admitted, method, CallRefusal.CALLS_MAX))
    assert ended.value.code is code
    assert bench.count(name, **labels, reason="calls_max") == 1


@pytest.mark.parametrize("why", [CallRefusal.TOKEN_REVOKED, CallRefusal.TOKEN_EXPIRED])
def test_a_call_under_way_ends_with_its_token_and_no_other_does(
    bench: Bench, why: CallRefusal
) -> None:
    async def call(node: str, ready: asyncio.Event) -> str:
        try:
            async with bench.door.admitted(Call(bearer(node)), "xds"):
                ready.set()
                await asyncio.sleep(60)
        except Aborted as exc:
            return str(exc)
        return "ended"

    async def whole() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            ready = [asyncio.Event() for _ in range(3)]
            calls = [
                tasks.create_task(call(node, each))
                for node, each in zip(("n1", "n1", "n2"), ready, strict=True)
            ]
            for each in ready:
                await each.wait()
            bench.door.end(lambda caller: why if caller.node == "n1" else None)
            assert await calls[0] == await calls[1] == "UNAUTHENTICATED: unauthenticated"
            assert not calls[2].done()
            calls[2].cancel()
        assert bench.door.calls.total == 0
        assert not bench.door._under_way

    asyncio.run(whole())
    assert bench.count("tulle_control_refused_total", method="xds", reason=why.word) == 2


def test_a_call_that_is_slow_to_leave_is_told_once(bench: Bench) -> None:
    async def call(ready: asyncio.Event, may_leave: asyncio.Event) -> str:
        try:
            async with bench.door.admitted(Call(bearer()), "xds"):
                ready.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    await may_leave.wait()
        except Aborted as exc:
            return str(exc)
        return "ended"

    async def whole() -> None:
        ready, may_leave = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(call(ready, may_leave))
            await ready.wait()
            for _ in range(3):  # as every second
                bench.door.end(lambda _: CallRefusal.TOKEN_REVOKED)
                await asyncio.sleep(0.01)
            assert not task.done()
            may_leave.set()
            assert await task == "UNAUTHENTICATED: unauthenticated"
            bench.door.end(lambda _: CallRefusal.TOKEN_REVOKED)

    asyncio.run(whole())
    assert bench.count("tulle_control_refused_total", method="xds", reason="token_revoked") == 1


def test_a_time_limit_of_a_calls_own_is_not_taken_for_a_revocation(bench: Bench) -> None:
    async def whole() -> None:
        async with bench.door.admitted(Call(bearer()), "xds"), asyncio.timeout(0.0):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(whole())


def test_a_client_that_goes_before_its_refusal_is_no_bug(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Call):
        async def abort(self, *_: object) -> NoReturn:
            raise grpc.aio.InternalError('Failed "execute_batch"')

    async def whole() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), bench.door.admitted(Gone("rubbish"), "xds"):
                pass

    asyncio.run(whole())
    monkeypatch.setattr(door, "GONE_S", 0.0)  # gRPC did not end it
    with pytest.raises(grpc.aio.InternalError):
        bench.admit(Gone("rubbish"))
