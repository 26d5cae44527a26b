"""Order of matches, by the text of HTTPRouteRule in the Gateway API."""

from __future__ import annotations

import random
from types import MappingProxyType

import pytest

from control.model.route import PathKind, RequestMatch, TextMatch
from control.server.gateway.precedence import rank
from control.server.sources.objects import Key, Meta

NOTHING = MappingProxyType[str, str]({})
A, B = TextMatch("a", "1"), TextMatch("b", "1")


def meta(name: str = "a", created: str = "2026-01-01T00:00:00Z", namespace: str = "shop") -> Meta:
    return Meta(Key("HTTPRoute", namespace, name), "", 0, NOTHING, NOTHING, created=created)


OLD = meta("z")
# Each line is tried before the next one.
ORDER = [
    (RequestMatch("/long", PathKind.EXACT), meta(), (9, 0)),
    (RequestMatch("/a", PathKind.EXACT, "GET", (A, B)), OLD, (0, 0)),
    (RequestMatch("/a", PathKind.EXACT), OLD, (0, 0)),
    (RequestMatch("/a.*", PathKind.REGEX), OLD, (0, 0)),
    (RequestMatch("/abc"), OLD, (0, 0)),
    (RequestMatch("/ab", method="GET", headers=(A,)), OLD, (0, 0)),
    (RequestMatch("/ab", method="GET"), OLD, (0, 0)),
    (RequestMatch("/ab", headers=(A, B)), OLD, (0, 0)),
    (RequestMatch("/ab", headers=(A,), query=(A,)), OLD, (0, 0)),
    (RequestMatch("/ab", headers=(A,)), OLD, (0, 0)),
    (RequestMatch("/ab", query=(A, B)), OLD, (0, 0)),
    (RequestMatch("/ab", query=(A,)), OLD, (0, 0)),
    (RequestMatch(), OLD, (0, 0)),
    (RequestMatch(), OLD, (0, 1)),
    (RequestMatch(), OLD, (1, 0)),
    (RequestMatch(), meta("b", "2026-01-02T00:00:00Z", "a-space"), (0, 0)),
    (RequestMatch(), meta("a", "2026-01-02T00:00:00Z"), (0, 0)),
    (RequestMatch(), meta("b", "2026-01-02T00:00:00Z"), (0, 0)),
    (RequestMatch(), meta("a", ""), (0, 0)),
]


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_order(seed: int) -> None:
    mixed = random.Random(seed).sample(ORDER, len(ORDER))
    assert sorted(mixed, key=lambda each: rank(*each)) == ORDER


CALLS = Meta(Key("GRPCRoute", "shop", "a"), "", 0, NOTHING, NOTHING)
CALL_ORDER = [
    (RequestMatch("/a.B/Get", PathKind.EXACT), CALLS, (3, 0)),
    (RequestMatch("/a.long.B"), CALLS, (2, 0)),
    (RequestMatch("/a.B", headers=(A,)), CALLS, (2, 0)),
    (RequestMatch("/a.B"), CALLS, (1, 0)),
    (RequestMatch("/[^/]+/Get", PathKind.REGEX), CALLS, (0, 0)),
    (RequestMatch(headers=(A, B)), CALLS, (0, 0)),
    (RequestMatch(headers=(A,)), CALLS, (0, 0)),
    (RequestMatch(), CALLS, (0, 0)),
]


@pytest.mark.parametrize("seed", range(5))
def test_calls_are_told_apart_by_service_first_and_then_by_method(seed: int) -> None:
    mixed = random.Random(seed).sample(CALL_ORDER, len(CALL_ORDER))
    assert sorted(mixed, key=lambda each: rank(*each)) == CALL_ORDER
