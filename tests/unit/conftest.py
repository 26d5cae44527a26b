"""The price of the unit tests: few examples for each property, and a bound on the CPU time of all.

`tests/fuzz` is where properties dig. A property whose values have many parts draws a seed and makes
them from it: drawing part by part costs more than the code under test. A busy or a slow machine is
not the tests' fault: the clock is the CPU's, and its unit a piece of work that is measured beside
them. Imports do not count, nor does what runs elsewhere.
"""

from __future__ import annotations

import hashlib
import resource
import statistics
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

UNIT = Path(__file__).parent
EXAMPLES_MAX = 40

# Seconds say little: a machine twice as slow, or whose other core is busy, takes twice as many. So
# one and the same piece of work runs every `TESTS_PER_PIECE` tests, and the price is counted in
# such pieces. 8,300 tests are worth about 8,000, a quarter of it pytest's own work. What exceeds
# the bound waits for real time in a loop, or makes a thousand of something where ten would do.
TESTS_PER_PIECE = 100
PIECES, PIECES_MAX = 8000, 20_000

settings.register_profile("unit", max_examples=EXAMPLES_MAX, deadline=None)
settings.load_profile("unit")


def piece() -> int:
    """Work of the tests' kind, some 20 ms: objects, text, hashes and a table that fills caches."""
    table = {f"ns-{number % 97}/pod-{number}": [number, str(number)] for number in range(12_000)}
    lines = sorted(f"{name}={value[0]:x}:{value[1]}" for name, value in table.items())
    return len(hashlib.sha256("\n".join(lines).encode()).hexdigest())


class Spent:
    """CPU seconds of the unit tests so far, those of their child processes included, and of the
    pieces of work between them."""

    def __init__(self) -> None:
        self.all_s = 0.0
        self.tests = 0
        self.pieces_s: list[float] = []
        self.most: tuple[float, str] = (0.0, "")

    def add(self, name: str, seconds: float) -> None:
        self.all_s += seconds
        self.most = max(self.most, (seconds, name))
        if self.tests % TESTS_PER_PIECE == 0:
            before_s = time.process_time()
            piece()
            self.pieces_s.append(time.process_time() - before_s)
        self.tests += 1

    def pieces(self) -> float:
        return self.all_s / statistics.median(self.pieces_s) if self.pieces_s else 0.0

    def too_much(self) -> bool:
        return self.pieces() > PIECES_MAX

    def __str__(self) -> str:
        return (
            f"unit tests: {self.all_s:.1f} s of CPU time, {self.pieces():.0f} pieces of work "
            f"(about {PIECES} expected, {PIECES_MAX} allowed) of "
            f"{statistics.median(self.pieces_s) * 1000:.0f} ms; "
            f"most: {self.most[1]}, {self.most[0]:.1f} s"
        )


SPENT = Spent()


@pytest.fixture(scope="session", autouse=True)
def many_files() -> None:
    """Open as many as this host allows, as our daemons do: a shell allows 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_s() -> float:
    """CPU time of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    before_s = cpu_s()
    result = yield
    if UNIT in item.path.parents:  # a hook of any conftest is asked about every test of the run
        SPENT.add(item.nodeid, cpu_s() - before_s)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    is_watched = sys.gettrace() is not None or sys.getprofile() is not None  # and far slower
    if (
        SPENT.tests
        and SPENT.too_much()
        and not is_watched
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SPENT.tests:
        terminalreporter.write_line(str(SPENT), red=SPENT.too_much())
