from __future__ import annotations

from typing import Any

import pytest

from control.model.http_policy import HttpMatch, PathTemplate, ValueMatch
from control.model.policy import StringMatch, StringMatchKind
from control.server.envoy.request_fields import UnaskableField, asks_token, permissions

EXACT, PREFIX = StringMatchKind.EXACT, StringMatchKind.PREFIX
SUFFIX, PRESENCE = StringMatchKind.SUFFIX, StringMatchKind.PRESENCE


def hosts(kind: StringMatchKind, value: str) -> list[dict[str, Any]]:
    (one,) = permissions(HttpMatch(hosts=(StringMatch(kind, value),)), is_strict=False)
    several = one["or_rules"]["rules"] if "or_rules" in one else [one]
    return [each["header"]["string_match"] for each in several]


def matches(kind: StringMatchKind, value: str, host: str) -> bool:
    low = host.lower()
    for each in hosts(kind, value):
        assert each.pop("ignore_case")
        ((how, text),) = each.items()
        text = text.lower()
        if {
            "exact": low == text,
            "prefix": low.startswith(text),
            "suffix": low.endswith(text),
            "contains": text in low,
        }[how]:
            return True
    return False


@pytest.mark.parametrize("host", ["a.shop", "A.Shop", "a.shop.", "a.shop:80", "a.shop.:80"])
def test_a_host_has_many_spellings(host: str) -> None:
    assert matches(EXACT, "a.shop", host)
    assert matches(SUFFIX, ".shop", host)
    assert matches(PREFIX, "a.", host)


@pytest.mark.parametrize("host", ["xa.shop", "a.shopx", "a-shop", "a.shop.evil"])
def test_another_host_is_another(host: str) -> None:
    assert not matches(EXACT, "a.shop", host)


def test_a_host_with_a_port_is_just_that() -> None:
    assert hosts(EXACT, "a:80") == [{"exact": "a:80", "ignore_case": True}]
    assert len(hosts(EXACT, "[::1]")) == 4


def test_an_empty_text_asks_for_something() -> None:
    for kind in (PRESENCE, PREFIX, SUFFIX):
        (one,) = permissions(HttpMatch(methods=(StringMatch(kind, ""),)), is_strict=False)
        assert one["header"]["string_match"] == {"safe_regex": {"regex": ".+"}}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("/a/{*}", "/a/*"),
        ("/a/{*}/b/{**}", "/a/*/b/**"),
        ("/{**}", "/**"),
        ("/a", "/a"),
        ("/", "/"),
        ("/a/", "/a/"),
    ],
)
def test_templates(text: str, made: str) -> None:
    (one,) = permissions(HttpMatch(paths=(PathTemplate(text),)), is_strict=False)
    assert one["uri_template"]["typed_config"]["path_template"] == made


@pytest.mark.parametrize(
    "text",
    ["/{**}/a", "/a{*}", "/*", "/{x}", "a", "/a/{*}b", "/[a]", "", "//", "/a//b", "/a" * 129],
)
def test_templates_that_envoy_has_not_allow_nothing_and_deny_all(text: str) -> None:
    match = HttpMatch(paths=(PathTemplate(text),))
    with pytest.raises(UnaskableField):
        permissions(match, is_strict=False)
    assert permissions(match, is_strict=True) == []


def test_values_of_a_header_and_those_it_must_not_have() -> None:
    header = ValueMatch(
        ("x-a",),
        (StringMatch(EXACT, "1"), StringMatch(EXACT, "2")),
        (StringMatch(EXACT, "3"),),
    )
    wanted, unwanted = permissions(HttpMatch(headers=(header,)), is_strict=False)
    assert len(wanted["or_rules"]["rules"]) == 2
    assert unwanted["not_rule"]["header"]["string_match"] == {"exact": "3"}


@pytest.mark.parametrize("name", ["", "a b", "::a"])
def test_a_header_that_cannot_be_allows_nothing_and_denies_all(name: str) -> None:
    match = HttpMatch(headers=(ValueMatch((name,), (StringMatch(EXACT, "1"),)),))
    with pytest.raises(UnaskableField):
        permissions(match, is_strict=False)
    assert permissions(match, is_strict=True) == []
    named = HttpMatch(headers=(ValueMatch((":authority",), (StringMatch(EXACT, "1"),)),))
    assert permissions(named, is_strict=False)


def test_tokens() -> None:
    assert not asks_token(HttpMatch())
    assert asks_token(HttpMatch(not_request_principals=(StringMatch(PRESENCE),)))
    assert asks_token(HttpMatch(claims=(ValueMatch(("a", "b")),)))
