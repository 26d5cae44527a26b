"""Callers while the API server is away: as good as when it was heard last, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.kube.client import KubeClient
from control.model.route import WaypointKey
from control.server.callers import outage
from control.server.callers.accounts import node_accounts
from control.server.callers.outage import (
    LENT_S,
    OUTAGE_S_MAX,
    RENEWAL_S,
    KnownCallers,
    KnownToken,
    newest_issued_s,
)
from control.server.callers.revocations import fingerprint
from control.server.callers.speakers import subject
from control.server.callers.tokens import Caller
from tests.support.account_tokens import ZTUNNEL
from tests.support.clock import FakeClock
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal

NAMESPACE = "tulle-system"
ACCOUNTS = node_accounts(NAMESPACE, ("tulle-ztunnel",), "istio-ca")
LIFE_S = 3600.0


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        account = {"name": "tulle-ztunnel", "namespace": NAMESPACE}
        server.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        head = {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}}
        spec = {"nodeName": "n1", "containers": []}
        server.put({**head, "metadata": {"name": "z1", "namespace": NAMESPACE}, "spec": spec})
        yield server


class OutageBench:
    def __init__(self, kube: KubeServer, path: Path) -> None:
        self.kube = kube
        self.clock = FakeClock(kube.store.now())
        self.path = path
        self.token = kube.token("tulle-ztunnel", audience="istio-ca", namespace=NAMESPACE, pod="z1")
        self.mark = fingerprint(self.token)
        self.known = self.restarted()

    def restarted(self, origin: str = "here") -> KnownCallers:
        self.known = KnownCallers(self.path, origin, ACCOUNTS, lambda pod: "n7", self.clock)
        return self.known

    def ask(self) -> None:
        async def act(client: KubeClient) -> None:
            await self.known._ask(client)

        with_client(self.kube, act)

    def vouch(self) -> None:
        caller = Caller("n1", ZTUNNEL, 1, self.mark, self.clock.now().timestamp() + LIFE_S)
        self.known.put(self.mark, KnownToken(caller, 60.0, caller.expires_s))

    def lent(self) -> Caller | None:
        return self.known.lent(self.token, self.mark)


@pytest.fixture
def bench(kube: KubeServer, tmp_path: Path) -> OutageBench:
    return OutageBench(kube, tmp_path / "known")


def test_what_was_vouched_for_is_good_until_its_end(bench: OutageBench) -> None:
    assert bench.lent() is None
    bench.vouch()
    bench.ask()
    assert bench.lent() == Caller("n1", ZTUNNEL)
    bench.clock.pass_s(LIFE_S)
    assert bench.lent() is None


def test_a_waypoints_caller_is_one_after_a_restart_and_a_strangers_is_none(
    bench: OutageBench,
) -> None:
    waypoint = WaypointKey("shop", "waypoint")
    caller = Caller("n1", subject(*waypoint), 1, "w", 1e12, waypoint)
    bench.known.put("w", KnownToken(caller, 60.0, 1e12))
    bench.known.put("x", KnownToken(Caller("n1", "nobody", 1, "x", 1e12), 60.0, 1e12))
    bench.known.save()
    known = bench.restarted()
    found = known.get("w")
    assert found is not None
    assert found.caller == caller
    assert known.get("x") is None


def test_in_an_outage_it_is_good_until_the_api_server_is_heard_again(bench: OutageBench) -> None:
    bench.vouch()
    bench.ask()
    with bench.kube.away():
        bench.ask()
        bench.clock.pass_s(3 * LIFE_S)
        found = bench.lent()
        assert found is not None
        assert (found.node, found.mark) == ("n1", bench.mark)
        assert found.expires_s == bench.clock.now().timestamp() + LENT_S
        assert bench.known.expired_s < bench.clock.now().timestamp() - 2 * LIFE_S
    bench.ask()
    bench.clock.pass_s(RENEWAL_S)
    assert bench.lent() is None
    assert bench.known.expired_s == bench.clock.now().timestamp()


def test_after_an_outage_kubelets_have_minutes_to_renew_what_ended_in_it(
    bench: OutageBench,
) -> None:
    bench.vouch()
    bench.ask()
    with bench.kube.away():
        bench.ask()
        bench.clock.pass_s(2 * LIFE_S)
    bench.ask()
    bench.known.drop(bench.mark)  # as for the other replica: the keys prove it
    bench.clock.pass_s(RENEWAL_S - 1)
    found = bench.lent()
    assert found is not None
    assert found.node == "n1"
    bench.ask()
    assert bench.lent() is not None, "it was heard again, not back from another outage"
    bench.clock.jump_s(-2 * LIFE_S)
    bench.clock.pass_s(2)
    assert bench.lent() is None, "the clock that was set back gives no more minutes"


def test_one_that_was_over_before_the_outage_stays_so(bench: OutageBench) -> None:
    bench.vouch()
    bench.clock.pass_s(LIFE_S)
    bench.ask()
    with bench.kube.away():
        bench.ask()
        assert bench.lent() is None


def test_an_outage_lends_for_a_week(bench: OutageBench) -> None:
    bench.vouch()
    bench.ask()
    with bench.kube.away():
        bench.ask()
        bench.clock.pass_s(OUTAGE_S_MAX)
        assert bench.lent() is not None
        bench.clock.pass_s(1)
        assert bench.lent() is None


DAYS = 86400.0


@pytest.mark.parametrize("jump_s", [-9 * DAYS, -LIFE_S, -1.0, 1.0, LIFE_S, 9 * DAYS])
def test_a_clock_that_is_set_neither_ends_nor_prolongs_an_outages_week(
    bench: OutageBench, jump_s: float
) -> None:
    bench.vouch()
    bench.ask()
    with bench.kube.away():
        bench.ask()
        bench.clock.pass_s(OUTAGE_S_MAX - 10)
        bench.clock.jump_s(jump_s)
        assert bench.lent() is not None
        bench.clock.pass_s(11)
        assert bench.lent() is None


@pytest.mark.parametrize("back_s", [10.0, LIFE_S, 9 * DAYS])
def test_a_clock_that_is_set_back_brings_no_token_back(bench: OutageBench, back_s: float) -> None:
    bench.vouch()
    bench.clock.pass_s(LIFE_S + 1)
    bench.ask()
    with bench.kube.away():
        bench.ask()
        bench.clock.jump_s(-back_s)
        assert bench.lent() is None


def test_after_a_restart_a_clock_that_was_set_back_lends_nothing(bench: OutageBench) -> None:
    bench.vouch()
    bench.ask()
    bench.known.save()
    bench.clock.jump_s(-100.0)
    bench.restarted()
    with bench.kube.away():
        bench.ask()
        assert bench.known.expired_s == bench.clock.now().timestamp()


def test_the_newest_token_of_a_node_is_told_from_the_file(bench: OutageBench) -> None:
    assert newest_issued_s(bench.path, "n1") == 0
    bench.vouch()
    bench.known.save()
    assert newest_issued_s(bench.path, "n1") == 1
    assert newest_issued_s(bench.path, "n2") == 0
    bench.path.write_text("{")
    with pytest.raises(ConfigError, match="unusable"):
        newest_issued_s(bench.path, "n1")


def test_a_token_of_another_replicas_caller_is_proved_by_the_keys(bench: OutageBench) -> None:
    bench.ask()
    assert bench.lent() is None, "the API server can be asked"
    with bench.kube.away():
        bench.ask()
        found = bench.lent()
        assert found is not None
        assert found.node == "n1"
        assert bench.known.lent("a.b.c", "x") is None


def test_all_of_it_outlives_the_process(bench: OutageBench) -> None:
    bench.vouch()
    bench.ask()
    bench.known.save()
    with bench.kube.away():
        bench.restarted()
        bench.ask()
        assert bench.lent() == Caller("n1", ZTUNNEL)
        bench.clock.pass_s(2 * LIFE_S)
        assert bench.lent() is not None
        bench.known.drop(bench.mark)
        proved = bench.lent()
        assert proved is not None
        assert proved.node == "n1"
    assert bench.path.stat().st_mode & 0o777 == 0o600


def test_what_was_asked_about_before_is_asked_about_again(bench: OutageBench) -> None:
    bench.vouch()
    bench.known.save()
    found = bench.restarted().get(bench.mark)
    assert found is not None
    assert found.fresh_until < 0


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"\xff", b'{"origin": "here"}'])
def test_a_broken_file_is_as_none(bench: OutageBench, data: bytes) -> None:
    bench.path.write_bytes(data)
    assert bench.restarted().get(bench.mark) is None


def test_the_callers_of_another_cluster_are_not_taken(bench: OutageBench) -> None:
    bench.vouch()
    bench.known.save()
    assert bench.restarted("there").get(bench.mark) is None


def test_an_api_server_that_hides_its_keys_is_there(
    bench: OutageBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.vouch()
    bench.kube.fail("GET /openid.*", refusal(403, "Forbidden", "no"))
    for _ in range(2):
        bench.ask()
    assert caplog.text.count("token_keys.none") == 1
    bench.clock.pass_s(LIFE_S)
    assert bench.lent() is None


def test_the_oldest_go_when_there_are_too_many(
    bench: OutageBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "GOOD_TOKENS_MAX", 2)
    for mark in "abc":
        bench.known.put(mark, KnownToken(Caller("n1", ZTUNNEL), 0.0, 1e12))
    assert [bench.known.get(mark) is None for mark in "abc"] == [True, False, False]
