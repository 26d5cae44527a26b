"""The bound on the CPU time of the unit tests: what counts, and when it is exceeded."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.unit.conftest import CPU_S_MAX, Spent, cpu_s


def test_the_most_expensive_test_is_named() -> None:
    spent = Spent()
    spent.add("cheap", 0.1)
    spent.add("dear", CPU_S_MAX - 0.1)
    spent.add("cheap too", 0.0)
    assert not spent.too_much()
    assert "most: dear" in str(spent)


def test_a_suite_beyond_the_bound_is_too_much() -> None:
    spent = Spent()
    for number in range(11):
        spent.add(str(number), CPU_S_MAX / 10)
    assert spent.too_much()


def test_the_time_of_a_child_counts() -> None:
    before_s, own_before_s = cpu_s(), time.process_time()
    subprocess.run([sys.executable, "-S", "-c", "sum(range(300_000))"], check=True)
    own_s = time.process_time() - own_before_s
    assert cpu_s() - before_s > own_s + 0.001
