"""Questions to the API server about tokens: asked once, remembered for a while, paid for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.kube.errors import ApiError, Unreachable
from control.model.route import WaypointKey
from control.server.callers.accounts import BoundPod, NodeAccounts, ReviewStatus, node_accounts
from control.server.callers.budget import REVIEWING, REVIEWS, Tenant, node_tenant, source_tenant
from control.server.callers.outage import RENEWAL_S, KnownCallers
from control.server.callers.refusals import CallRefusal
from control.server.callers.reviews import AWAY_S, BAD_S, BAD_TOKENS_MAX, GOOD_S, TokenReviews
from control.server.callers.speakers import subject
from control.server.callers.tokens import Caller, Unauthenticated, Undecided
from control.server.metrics import Metrics
from tests.support.account_tokens import ACCOUNTS, ZTUNNEL, account_token, status
from tests.support.clock import FakeClock

N1, STRANGER = node_tenant("n1"), source_tenant("10.9.9.9")
LIFE_S = 3600.0
WAYPOINT = WaypointKey("shop", "waypoint")
NOWHERE = Path("/proc/nowhere/known")


class FakeAsks:
    """An API server whose words a test sets; `gate` holds them back."""

    def __init__(self) -> None:
        self.answer: ReviewStatus | Exception = status()
        self.nodes: dict[str, str] = {}
        self.asked: list[str] = []
        self.under_way = self.most = 0
        self.gate: asyncio.Event | None = None

    async def status(self, token: str) -> ReviewStatus:
        self.asked.append(token)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.under_way -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def node_of(self, pod: BoundPod) -> str:
        return self.nodes.get(pod.uid, "")


class Bench:
    def __init__(self, accounts: NodeAccounts = ACCOUNTS) -> None:
        self.clock = FakeClock()
        self.asks = FakeAsks()
        self.metrics = Metrics()
        known = self.known = KnownCallers(NOWHERE, "here", accounts, lambda pod: "", self.clock)
        self.reviews = TokenReviews(
            self.asks, accounts, known, metrics=self.metrics, clock=self.clock
        )

    def token(self, number: int = 0) -> str:
        return account_token(self.clock.now().timestamp() + LIFE_S, number)

    def ask(self, token: str, payer: Tenant = N1) -> Caller:
        return asyncio.run(self.reviews.authenticate(token, payer))

    def why(self, token: str, payer: Tenant = N1) -> CallRefusal:
        with pytest.raises((Unauthenticated, Undecided)) as caught:
            self.ask(token, payer)
        assert isinstance(caught.value, Unauthenticated | Undecided)
        return caught.value.why

    def counted(self, result: str) -> float:
        labels = {"result": result}
        name = "tulle_control_token_reviews_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0


async def settled() -> None:
    """Let every task go on until it waits for the gate."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_good_token_speaks_for_its_node_and_is_asked_about_once_a_minute(bench: Bench) -> None:
    token = bench.token()
    assert bench.ask(token) == bench.ask(token) == Caller("n1", ZTUNNEL)
    assert len(bench.asks.asked) == 1
    bench.clock.pass_s(GOOD_S)
    bench.ask(token)
    assert len(bench.asks.asked) == 2
    assert bench.counted("vouched") == 2


def test_a_waypoints_token_speaks_for_it_until_its_gateway_goes() -> None:
    live = {WAYPOINT}
    bench = Bench(node_accounts("tulle-system", (), "istio-ca", live.__contains__))
    bench.asks.answer = status(username=subject(*WAYPOINT))
    token = account_token(bench.clock.now().timestamp() + LIFE_S, sub=subject(*WAYPOINT))
    assert bench.ask(token) == Caller("n1", subject(*WAYPOINT), waypoint=WAYPOINT)
    live.clear()
    assert bench.why(token) is CallRefusal.TOKEN_SUBJECT, "though it was vouched for just now"


def test_a_token_is_never_good_after_its_own_end(bench: Bench) -> None:
    token = account_token(bench.clock.now().timestamp() + 10)
    bench.ask(token)
    bench.clock.pass_s(10)
    assert bench.why(token) is CallRefusal.TOKEN_EXPIRED


def test_a_token_of_a_pod_that_went_is_refused_within_a_minute(bench: Bench) -> None:
    token = bench.token()
    bench.ask(token)
    bench.asks.answer = ReviewStatus(error="invalidated")
    bench.clock.pass_s(GOOD_S)
    assert bench.why(token) is CallRefusal.TOKEN_REVIEW
    bench.asks.answer = Unreachable("away")
    bench.clock.pass_s(BAD_S)
    assert bench.why(token) is CallRefusal.REVIEWS_AWAY, "what was said last counts, not the yes"


def test_a_bad_token_is_remembered_for_seconds(bench: Bench) -> None:
    bench.asks.answer = ReviewStatus()
    token = bench.token()
    for _ in range(5):
        assert bench.why(token) is CallRefusal.TOKEN_REVIEW
    assert len(bench.asks.asked) == 1
    bench.clock.pass_s(BAD_S)
    bench.asks.answer = status()
    assert bench.ask(token).node == "n1"


def test_bad_tokens_are_remembered_apart_and_bounded(bench: Bench) -> None:
    good = bench.token()
    bench.ask(good)
    bench.asks.answer = ReviewStatus()
    for number in range(1, BAD_TOKENS_MAX + 10):
        bench.why(bench.token(number), source_tenant(f"10.0.{number // 32 % 256}.{number // 8192}"))
    assert len(bench.reviews._bad) == BAD_TOKENS_MAX
    assert bench.ask(good).node == "n1"


def test_an_api_server_without_nodes_in_its_answer_is_asked_for_the_pod(bench: Bench) -> None:
    bench.asks.answer = status(node_name=[])
    assert bench.why(bench.token(1)) is CallRefusal.TOKEN_NODE
    bench.asks.nodes = {"u1": "n7"}
    assert bench.ask(bench.token(2)).node == "n7"


def test_invented_tokens_use_up_their_senders_budget_only(bench: Bench) -> None:
    bench.asks.answer = ReviewStatus()
    whys = [bench.why(bench.token(number), STRANGER) for number in range(200)]
    assert whys.count(CallRefusal.TOKEN_REVIEW) == len(bench.asks.asked) == REVIEWS.burst
    assert set(whys) == {CallRefusal.TOKEN_REVIEW, CallRefusal.REVIEWS_RATE}
    bench.asks.answer = status()
    assert bench.ask(bench.token(1000)).node == "n1"


def test_a_token_that_could_not_be_ours_costs_no_question(bench: Bench) -> None:
    for text in ("x", "a.b.c", account_token(1.0), "x" * 9000):
        bench.why(text, STRANGER)
    assert bench.asks.asked == []


@pytest.mark.parametrize(
    "trouble", [Unreachable("refused"), ApiError(403, "Forbidden", "no"), TimeoutError()]
)
def test_while_nobody_can_be_asked_only_what_was_good_is_taken(
    bench: Bench, trouble: Exception
) -> None:
    token = bench.token()
    bench.ask(token)
    bench.asks.answer = trouble
    bench.clock.pass_s(GOOD_S)
    assert bench.ask(token).node == "n1"
    assert bench.why(bench.token(1)) is CallRefusal.REVIEWS_AWAY
    bench.clock.pass_s(LIFE_S)
    assert bench.why(token) is CallRefusal.TOKEN_EXPIRED


def test_a_token_that_ended_in_an_outage_is_taken_afterwards_and_never_asked_about(
    bench: Bench,
) -> None:
    token = bench.token()
    bench.ask(token)
    bench.known._heard()
    bench.known._is_away = True
    bench.clock.pass_s(LIFE_S + 1)
    stranger = account_token(bench.clock.now().timestamp() - 1, 7)
    bench.known._heard()
    bench.asks.answer = status(authenticated=False)  # as it says of every token that is over
    assert bench.ask(token).node == "n1"
    assert bench.why(stranger) is CallRefusal.REVIEWS_AWAY, "nobody has vouched for it"
    assert bench.asks.asked == [token]
    bench.clock.pass_s(RENEWAL_S)
    assert bench.why(token) is CallRefusal.TOKEN_EXPIRED


def test_an_api_server_that_failed_has_a_moment_of_rest(bench: Bench) -> None:
    bench.asks.answer = ApiError(429, "TooManyRequests", "later", retry_after_s=5.0)
    for number in range(10):
        assert bench.why(bench.token(number)) is CallRefusal.REVIEWS_AWAY
    assert len(bench.asks.asked) == 1
    bench.clock.pass_s(AWAY_S)
    bench.why(bench.token())
    assert len(bench.asks.asked) == 1
    bench.clock.pass_s(5.0)
    bench.asks.answer = status()
    assert bench.ask(bench.token()).node == "n1"


def test_one_question_answers_all_who_show_the_same_token(bench: Bench) -> None:
    async def crowd() -> list[Caller]:
        bench.asks.gate = asyncio.Event()
        token = bench.token()
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(bench.reviews.authenticate(token, N1)) for _ in range(20)]
            await settled()
            bench.asks.gate.set()
        return [each.result() for each in asking]

    assert {each.node for each in asyncio.run(crowd())} == {"n1"}
    assert len(bench.asks.asked) == 1


def test_whoever_waited_for_an_asker_that_went_asks_again(bench: Bench) -> None:
    async def crowd() -> Caller:
        bench.asks.gate = asyncio.Event()
        token = bench.token()
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(bench.reviews.authenticate(token, N1))
            await settled()
            second = tasks.create_task(bench.reviews.authenticate(token, N1))
            await asyncio.sleep(0)
            first.cancel()
            bench.asks.gate.set()
        return second.result()

    assert asyncio.run(crowd()).node == "n1"
    assert len(bench.asks.asked) == 2


def test_questions_under_way_are_bounded_and_each_tenant_has_its_turn(bench: Bench) -> None:
    async def flood() -> None:
        bench.asks.gate = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                tasks.create_task(bench.reviews.authenticate(bench.token(number), STRANGER))
            honest = tasks.create_task(bench.reviews.authenticate(bench.token(99), N1))
            await settled()
            assert bench.token(99) in bench.asks.asked
            bench.asks.gate.set()
            await honest

    asyncio.run(flood())
    assert bench.asks.most <= REVIEWING.total
