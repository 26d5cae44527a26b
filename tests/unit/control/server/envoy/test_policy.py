from __future__ import annotations

from typing import Any

import pytest

from control.model.http_policy import HttpClause, HttpMatch, HttpPolicy, HttpPolicyRule
from control.model.policy import Action, Match, StringMatch, StringMatchKind
from control.model.route import Layer
from control.server.envoy import policy
from tests.unit.control.server.envoy.worlds import front

ALLOW, DENY = Action.ALLOW, Action.DENY
ADMIN = HttpMatch(l4=Match(principals=(StringMatch(StringMatchKind.SUFFIX, "/sa/admin"),)))
GET = HttpMatch(methods=(StringMatch(StringMatchKind.EXACT, "GET"),))
TOKEN = HttpMatch(request_principals=(StringMatch(StringMatchKind.PRESENCE),))
ANY = {"permissions": [{"any": True}], "principals": [{"any": True}]}


def made(action: Action, *rules: HttpPolicyRule, **more: Any) -> dict[str, Any]:
    """The entries by name."""
    layer = more.pop("layer", Layer.HTTP)
    one = HttpPolicy("shop/p", action, rules, **more)
    found = policy.rules(front(policies=(one,), layer=layer), action)["rbac"]
    entries: dict[str, Any] = found["rules"]["policies"]
    assert found["rules"]["action"] == action.name
    return entries


def rule(*clauses: tuple[HttpMatch, ...]) -> HttpPolicyRule:
    return HttpPolicyRule(tuple(HttpClause(each) for each in clauses))


def test_without_policies_the_filter_lets_pass() -> None:
    assert policy.rules(front(), ALLOW) == policy.no_rules()


def test_a_policy_is_its_own_filters_matter_alone() -> None:
    one = HttpPolicy("shop/p", DENY, (HttpPolicyRule(),))
    assert policy.rules(front(policies=(one,)), ALLOW) == policy.no_rules()


def test_the_empty_cases() -> None:
    assert made(ALLOW) == {}  # allows nothing
    assert made(ALLOW, rule()) == {"shop/p[0]": ANY}
    assert made(ALLOW, rule(())) == {"shop/p[0]": ANY}
    assert made(ALLOW, rule((HttpMatch(),))) == {}


def test_source_and_request_stand_apart() -> None:
    entry = made(ALLOW, rule((ADMIN,), (GET,)))["shop/p[0]"]
    assert "filter_state" in entry["principals"][0]
    assert "header" in entry["permissions"][0]


def test_alternatives_of_one_kind_are_one_entry_and_of_two_are_several() -> None:
    assert len(made(ALLOW, rule((ADMIN, ADMIN)))) == 1
    assert len(made(ALLOW, rule((GET, GET)))) == 1
    assert made(ALLOW, rule((ADMIN, GET))).keys() == {"shop/p[0].0", "shop/p[0].1"}
    assert made(ALLOW, rule((ADMIN, HttpMatch()))).keys() == {"shop/p[0]"}


@pytest.mark.parametrize("match", [GET, HttpMatch(l4=ADMIN.l4, methods=GET.methods)])
def test_tcp_allows_nothing_by_what_a_request_has(match: HttpMatch) -> None:
    assert made(ALLOW, rule((match,)), layer=Layer.TCP) == {}


def test_tcp_denies_all_by_what_a_request_has() -> None:
    assert made(DENY, rule((GET,)), layer=Layer.TCP) == {"shop/p[0]": ANY}
    both = HttpMatch(l4=ADMIN.l4, methods=GET.methods)
    entry = made(DENY, rule((both,)), layer=Layer.TCP)["shop/p[0]"]
    assert entry == made(DENY, rule((ADMIN,)), layer=Layer.TCP)["shop/p[0]"]


def test_tokens_allow_nothing_and_deny_all() -> None:
    assert made(ALLOW, rule((TOKEN,))) == {}
    assert made(DENY, rule((TOKEN,))) == {"shop/p[0]": ANY}


def test_a_port_that_is_not_the_fronts() -> None:
    other = HttpMatch(l4=Match(destination_ports=(81,)))
    assert made(ALLOW, rule((other,))) == made(DENY, rule((other,))) == {}


def test_too_many_variants_allow_nothing_and_deny_all() -> None:
    clauses = ((ADMIN, GET),) * 7  # 128
    assert made(ALLOW, rule(*clauses)) == {}
    assert made(DENY, rule(*clauses)) == {"shop/p[0]": ANY}
    assert len(made(ALLOW, rule(*clauses[:6]))) == policy.VARIANTS_MAX


def test_dry_run_is_in_the_shadow() -> None:
    dry = HttpPolicy("shop/d", DENY, (HttpPolicyRule(),), dry_run=True)
    found = policy.rules(front(policies=(dry,)), DENY)["rbac"]
    assert found == {"shadow_rules": {"action": "DENY", "policies": {"shop/d[0]": ANY}}}
