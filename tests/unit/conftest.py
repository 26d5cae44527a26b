"""The price of the unit tests: few examples for each property, and a bound on the CPU time of all.

`tests/fuzz` is where properties dig. A property whose values have many parts draws a seed and makes
them from it: drawing part by part costs more than the code under test. The clock is the CPU's,
because a busy machine is not the tests' fault; imports do not count, nor does what runs elsewhere.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

UNIT = Path(__file__).parent
EXAMPLES_MAX = 40

# 7,500 tests together take 55 s on one of two virtual cores (84 s while others keep them busy), a
# quarter of it pytest's own work. Other machines are slower, by far less than this factor; what
# exceeds it waits for real time in a loop, or makes a thousand of something where ten would do.
CPU_S = 55.0
CPU_S_MAX = 3 * CPU_S

settings.register_profile("unit", max_examples=EXAMPLES_MAX, deadline=None)
settings.load_profile("unit")


class Spent:
    """CPU seconds of the unit tests so far, those of their child processes included."""

    def __init__(self) -> None:
        self.all_s = 0.0
        self.most: tuple[float, str] = (0.0, "")

    def add(self, name: str, seconds: float) -> None:
        self.all_s += seconds
        self.most = max(self.most, (seconds, name))

    def too_much(self) -> bool:
        return self.all_s > CPU_S_MAX

    def __str__(self) -> str:
        return (
            f"unit tests: {self.all_s:.1f} s of CPU time (about {CPU_S:.0f} expected, "
            f"{CPU_S_MAX:.0f} allowed); most: {self.most[1]}, {self.most[0]:.1f} s"
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
    if SPENT.too_much() and not is_watched and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SPENT.all_s:
        terminalreporter.write_line(str(SPENT), red=SPENT.too_much())
