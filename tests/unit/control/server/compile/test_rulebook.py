"""Policies and the pods that they are for: numbers follow both."""

from __future__ import annotations

from itertools import chain

import pytest

from control.kit.slices import done
from control.server.compile.residents import Residents
from control.server.compile.rulebook import Rulebook
from control.server.compile.settings import Settings
from control.server.sources.objects import AuthorizationPolicy, Key, PeerAuthentication
from tests.support.manifests import load, objects, pod, policy
from tests.support.mesh_worlds import AMBIENT, Reported

SELECTS = "{selector: {matchLabels: {app: web}}}"


class Bench:
    def __init__(self) -> None:
        self.residents = Residents(Settings(), Reported())
        self.rulebook = Rulebook(Settings(), self.residents)

    def pods(self, *texts: str) -> None:
        for each in objects("".join(texts)).pods:
            self.residents.put_pod(each.meta.key, each)
        self._move()

    def gone(self, name: str) -> None:
        self.residents.put_pod(Key("Pod", "shop", name), None)
        self._move()

    def _move(self) -> None:
        for move in self.residents.settle():
            if move is not None:
                self.rulebook.moved(move)

    def settle(self) -> tuple[set[Key], set[Key]]:
        statuses, concerned = done(self.rulebook.settle())
        return statuses, set(chain.from_iterable(concerned))

    def policy(self, text: str) -> Key:
        (found,) = load(text).objects.by_key().values()
        if isinstance(found, AuthorizationPolicy):
            self.rulebook.put_authorization(found.meta.key, found)
        else:
            assert isinstance(found, PeerAuthentication)
            self.rulebook.put_peer(found.meta.key, found)
        list(self.rulebook.count())
        return found.meta.key


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "PeerAuthentication"])
def test_a_policy_for_nobody_says_so_until_somebody_comes(kind: str) -> None:
    bench = Bench()
    key = bench.policy(policy(SELECTS, kind))
    statuses, concerned = bench.settle()
    assert (statuses, concerned) == ({key}, set())
    assert bench.rulebook.statuses[key].reason == "Unmatched"
    bench.pods(pod("a", labels="app: web"))
    assert bench.settle()[0] == {key}
    assert bench.rulebook.statuses[key].reason == "Accepted"
    bench.pods(pod("b", labels=f"app: web, {AMBIENT}", address="10.1.0.2"))
    assert bench.settle()[0] == set(), "there was one already"
    assert bench.rulebook.enrolled(key) == 1
    bench.gone("a")
    bench.pods(pod("b", labels=AMBIENT, address="10.1.0.2"))
    assert bench.settle()[0] == {key}
    assert (bench.rulebook.enrolled(key), bench.rulebook.statuses[key].reason) == (0, "Unmatched")


def test_a_policy_without_selector_is_for_its_namespace_and_the_roots_for_all() -> None:
    bench = Bench()
    bench.pods(pod("a", labels=AMBIENT), pod("b", "mine", labels=AMBIENT, address="10.1.0.2"))
    mine, everywhere = (
        bench.policy(policy("{}")),
        bench.policy(policy("{}", namespace="istio-system")),
    )
    assert [bench.rulebook.enrolled(each) for each in (mine, everywhere)] == [1, 2]


def test_a_pod_has_the_names_of_both_kinds_in_one_order() -> None:
    bench = Bench()
    bench.pods(pod("a", labels="app: web"))
    key = bench.policy(policy(SELECTS, name="z"))
    bench.policy(policy("{mtls: {mode: STRICT}}", "PeerAuthentication"))
    _, concerned = bench.settle()
    assert concerned == {Key("Pod", "shop", "a")}
    strict = "istio-system/istio_converted_static_strict"
    assert bench.rulebook.policies_of("shop", {"app": "web"}) == (strict, "shop/z")
    assert bench.rulebook.is_strict("shop", {})
    assert not bench.rulebook.is_strict("mine", {})
    bench.rulebook.put_authorization(key, None)
    assert bench.settle() == ({key}, {Key("Pod", "shop", "a")})
    assert bench.rulebook.policies.current.keys() == {strict}
