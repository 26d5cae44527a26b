"""Memory that callers used goes back when they are gone, whenever the last release was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from control.kit import surplus
from control.kit.surplus import LOOKS_MAX, Surplus

MIB = 1 << 20


class Process:
    """A process with `used` bytes, whose allocator keeps what it had until the next release."""

    def __init__(self) -> None:
        self.subject = Surplus()
        self.used = self.resident = 80 * MIB
        self.releases = 0

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.resident = max(self.resident, self.used)
            if self.subject.is_due(self.resident):
                before, self.resident = self.resident, self.used
                self.releases += 1
                self.subject.released(before, self.resident)


@pytest.mark.parametrize("looks", [1, 2, 5, 60])
@pytest.mark.parametrize("before", [0, 1, 3, 60])
def test_what_a_peak_took_goes_back_though_a_release_came_in_the_middle_of_it(
    before: int, looks: int
) -> None:
    process = Process()
    process.look(before)
    process.used = 220 * MIB
    process.look(looks)
    process.used = 80 * MIB
    process.look(min(2 * looks, LOOKS_MAX))
    assert process.resident == 80 * MIB


@pytest.mark.parametrize("used", [80, 400])
def test_what_yields_nothing_is_tried_less_and_less(used: int) -> None:
    process = Process()
    process.look(2)
    process.used = used * MIB
    process.look(60)
    assert process.releases <= 2 + 6, "in ten minutes"
    told = process.releases
    process.look(10 * LOOKS_MAX)
    assert process.releases <= told + 10, "in each ten minutes more"


def test_it_looks_and_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100, 50, 50, 200, 60])
    released: list[str] = []
    monkeypatch.setattr(surplus, "resident_bytes", lambda: next(sizes))
    monkeypatch.setattr(surplus, "release", lambda aged_max: released.append("now"))
    monkeypatch.setattr(asyncio, "sleep", until(lambda: len(released) == 2))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(surplus.give_back())


def until(over: Callable[[], bool]) -> Callable[[float], object]:
    async def sleep(_: float) -> None:
        if over():
            raise asyncio.CancelledError

    return sleep
