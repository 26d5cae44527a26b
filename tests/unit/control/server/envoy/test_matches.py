from __future__ import annotations

from typing import Any

import pytest

from control.model.route import PathKind, RequestMatch, TextMatch, TextMatchKind
from control.server.envoy.letters import Unspeakable
from control.server.envoy.matches import of_request


@pytest.mark.parametrize(
    ("match", "made"),
    [
        (RequestMatch(), {"prefix": "/"}),
        (RequestMatch("/a"), {"path_separated_prefix": "/a"}),
        (RequestMatch("/a", PathKind.EXACT), {"path": "/a"}),
        (RequestMatch("/a.*", PathKind.REGEX), {"safe_regex": {"regex": "/a.*"}}),
        (
            RequestMatch(method="PUT"),
            {
                "prefix": "/",
                "headers": [{"name": ":method", "string_match": {"exact": "PUT"}}],
            },
        ),
        (
            RequestMatch(query=(TextMatch("q", "a+", TextMatchKind.REGEX),)),
            {
                "prefix": "/",
                "query_parameters": [
                    {"name": "q", "string_match": {"safe_regex": {"regex": "a+"}}}
                ],
            },
        ),
    ],
)
def test_a_match(match: RequestMatch, made: dict[str, Any]) -> None:
    assert of_request(match) == made


@pytest.mark.parametrize(
    "match",
    [
        RequestMatch("/(?=a)", PathKind.REGEX),
        RequestMatch(headers=(TextMatch("a", "(", TextMatchKind.REGEX),)),
        RequestMatch(headers=(TextMatch("a b", "c"),)),
        RequestMatch(headers=(TextMatch("a", "b\n"),)),
        RequestMatch(method="GET /"),
        RequestMatch("/a/"),
        RequestMatch("/a?b"),
    ],
)
def test_what_envoy_would_refuse(match: RequestMatch) -> None:
    with pytest.raises(Unspeakable):
        of_request(match)
