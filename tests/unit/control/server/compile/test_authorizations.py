"""AuthorizationPolicies: what a change of one means to pods."""

from __future__ import annotations

from itertools import chain

from control.server.compile.authorizations import Authorizations
from control.server.compile.policies import PolicyChanges
from control.server.compile.population import Population
from control.server.compile.settings import Settings
from control.server.sources.objects import AuthorizationPolicy, Key
from tests.support.manifests import load, policy

WEB, DB = (Key("Pod", "shop", name) for name in ("web", "db"))
KEY = Key("AuthorizationPolicy", "shop", "p")


def subject() -> Authorizations:
    population = Population()
    for key in (WEB, DB):
        population.put(key, {"app": key.name})
    return Authorizations(Settings(), population)


def selecting(app: str, more: str = "") -> AuthorizationPolicy:
    text = policy(f"{{selector: {{matchLabels: {{app: {app}}}}}, {more}}}")
    return load(text).objects.authorization_policies[0]


def pods_of(changes: PolicyChanges) -> set[Key]:
    return set(chain.from_iterable(changes.pods))


def test_pods_are_concerned_when_they_begin_or_cease_to_be_selected() -> None:
    found = subject()
    found.put(KEY, selecting("web"))
    assert pods_of(found.settle()) == {WEB}
    found.put(KEY, selecting("db"))
    assert pods_of(found.settle()) == {WEB, DB}
    found.put(KEY, selecting("db", "rules: [{}]"))
    changes = found.settle()
    assert pods_of(changes) == set(), "they name it as before"
    assert changes.policies.keys() == {"shop/p"}
    found.put(KEY, None)
    changes = found.settle()
    assert (pods_of(changes), changes.policies, changes.statuses) == (
        {DB},
        {"shop/p": None},
        {KEY: None},
    )


def test_one_that_no_node_gets_is_named_by_no_pod() -> None:
    found = subject()
    found.put(KEY, selecting("web", "action: CUSTOM"))
    changes = found.settle()
    assert (pods_of(changes), changes.policies) == (set(), {"shop/p": None})
    assert not changes.statuses[KEY].delivered  # type: ignore[union-attr]  # or it fails
    assert found.policies_of("shop", {"app": "web"}) == []
    found.put(KEY, selecting("web"))
    assert pods_of(found.settle()) == {WEB}
    assert found.policies_of("shop", {"app": "web"}) == ["shop/p"]
    assert found.policies_of("other", {"app": "web"}) == []
