"""Routes in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.cli.views.routes import changes_of, destination_words, front_rows, match_words
from control.model.route import (
    Cors,
    Destination,
    HeaderChange,
    HttpRule,
    Layer,
    Mirror,
    PathKind,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    TextMatch,
    TextMatchKind,
)
from tests.unit.agent.cli.views.test_explanation import FRONT, WAYPOINT


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (RequestMatch(), "/*"),
        (RequestMatch("/a", method="GET"), "GET /a/*"),
        (RequestMatch("/a", PathKind.EXACT), "/a"),
        (RequestMatch("/a.*", PathKind.REGEX), "~/a.*"),
        (
            RequestMatch(
                headers=(TextMatch("x", "1"), TextMatch("y", "a+", TextMatchKind.REGEX)),
                query=(TextMatch("q", ""),),
            ),
            "/*, x=1, y~a+, ?q=",
        ),
    ],
)
def test_a_match_is_one_line(match: RequestMatch, words: str) -> None:
    assert match_words(HttpRule("r", match)) == words
    assert match_words(HttpRule("r", match, ("a.b", "*.c"))).startswith(
        words.partition(",")[0] + " on a.b *.c"
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (HttpRule("r"), []),
        (HttpRule("r", redirect=Redirect(scheme="https")), ["redirect to https://*/*"]),
        (
            HttpRule("r", redirect=Redirect(hostname="a", port=8, path="/x")),
            ["redirect to *://a:8/x"],
        ),
        (HttpRule("r", rewrite=Rewrite("h", prefix="/p/")), ["rewritten to h/p/*"]),
        (
            HttpRule("r", request_headers=HeaderChange(("a",), (("b", "1"),), (("c", "2"),))),
            [
                "request header a removed",
                "request header b set to 1",
                "request header c added: 2",
            ],
        ),
        (HttpRule("r", mirrors=(Mirror("s/b:80", 0.25),)), ["25% mirrored to s/b:80"]),
        (HttpRule("r", cors=Cors(("https://a", "https://b"))), ["CORS for https://a https://b"]),
        (HttpRule("r", retry=Retry(3, (502, 503))), ["3 more tries after 502 503"]),
        (
            HttpRule("r", timeout_s=2.5, try_timeout_s=1),
            ["timeout 2.5 s", "timeout of a try 1 s"],
        ),
        (HttpRule("r", timeout_s=0), []),
    ],
)
def test_everything_that_a_rule_does_is_told(rule: HttpRule, words: list[str]) -> None:
    assert list(changes_of(rule)) == words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "500"),
        ((Destination("a", 0),), "500"),
        ((Destination(""),), "500"),
        ((Destination("a", 5),), "a"),
        ((Destination("a", 2), Destination("", 1), Destination("c", 0)), "66.7% a, 33.3% 500"),
    ],
)
def test_weights_are_shares(given: tuple[Destination, ...], words: str) -> None:
    assert destination_words(given) == words


def test_a_front_has_a_row_for_each_rule_and_one_if_it_has_none() -> None:
    assert [row["to"] for row in front_rows(WAYPOINT, FRONT)] == [
        "redirect to *://*/*",
        "shop/web-v2:80",
        "80% shop/web-v1:80, 20% shop/web-v2:80",
        "500",
    ]
    assert [row["to"] for row in front_rows(WAYPOINT, replace(FRONT, rules=()))] == ["404"]
    assert [row["to"] for row in front_rows(WAYPOINT, replace(FRONT, rules=None))] == [
        "shop/web:80"
    ]
    tcp = replace(FRONT, layer=Layer.TCP, destinations=())
    assert [(row["match"], row["to"]) for row in front_rows(WAYPOINT, tcp)] == [("*", "500")]
