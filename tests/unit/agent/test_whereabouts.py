"""The control plane's replicas, by name and by their own word."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from agent.whereabouts import REPLICAS_MAX, SAID_S, Whereabouts, resolve
from control.model.address import parse_address
from tests.support.clock import FakeClock

A, B = parse_address("10.1.0.1"), parse_address("fd00::2")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[bool] = []
        self.subject = Whereabouts("replicas:15012", self.clock, self.told.append)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nobody_is_known_at_first(bench: Bench) -> None:
    assert bench.told == [False]
    assert bench.subject.all() == []


def test_either_way_is_enough(bench: Bench) -> None:
    bench.subject.named(None)
    bench.subject.said([A, B])
    assert bench.subject.all() == ["10.1.0.1:15012", "[fd00::2]:15012"]
    assert bench.told == [False, True]
    named = Bench()
    named.subject.named(["10.1.0.9:15012"])
    named.subject.said([])  # an older one
    assert named.subject.all() == ["10.1.0.9:15012"]
    assert named.told == [False, True]


def test_both_ways_add_up(bench: Bench) -> None:
    bench.subject.said([A])
    bench.subject.named(["10.1.0.1:15012", "10.1.0.9:15012"])
    assert bench.subject.all() == ["10.1.0.1:15012", "10.1.0.9:15012"]


def test_a_name_that_is_not_resolved_any_more_leaves_what_is_said_or_was_known(
    bench: Bench,
) -> None:
    bench.subject.named(["10.1.0.9:15012"])
    bench.subject.named(None)
    assert bench.subject.all() == ["10.1.0.9:15012"]
    assert bench.told[-1] is False, "there may be others by now"
    bench.subject.said([A])
    assert bench.subject.all() == ["10.1.0.1:15012"]
    assert bench.told[-1] is True


def test_a_name_without_addresses_is_not_resolved(bench: Bench) -> None:
    bench.subject.named([])
    assert bench.told == [False]


def test_the_last_word_counts_and_not_for_ever(bench: Bench) -> None:
    bench.subject.said([A])
    bench.subject.said([B])
    assert bench.subject.all() == ["[fd00::2]:15012"]
    assert bench.told == [False, True, True], "each change is told"
    bench.clock.pass_s(SAID_S)
    assert bench.subject.all() == []
    assert bench.told[-1] is False


def test_more_than_can_be_told_are_not_all_known(bench: Bench) -> None:
    many = [parse_address(f"10.1.0.{number}") for number in range(REPLICAS_MAX + 1)]
    bench.subject.said(many)
    assert len(bench.subject.all()) == REPLICAS_MAX
    assert bench.told[-1] is False


def test_addresses_of_both_families_are_written_as_addresses() -> None:
    assert asyncio.run(resolve("127.0.0.1:15012")) == ["127.0.0.1:15012"]
    assert asyncio.run(resolve("[::1]:15012")) == ["[::1]:15012"]


@pytest.mark.parametrize("name", ["a..b:15012", f"{'a' * 70}.b:15012"])
def test_a_name_that_is_none_is_not_resolved(name: str) -> None:
    with pytest.raises(OSError, match="label"):
        asyncio.run(resolve(name))


def test_a_resolver_that_does_not_answer_outlasts_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        asked.set()
        may_answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def whole() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolve("replicas:15012")

    asyncio.run(whole())  # it would wait for a thread of its own executor
    assert asked.wait(5)
    may_answer.set()
