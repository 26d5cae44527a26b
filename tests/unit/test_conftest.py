"""The bound on the CPU time of the unit tests: what counts, and when it is exceeded."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.unit.conftest import PIECES_MAX, TESTS_PER_PIECE, Spent, cpu_s, piece


def test_the_most_expensive_test_is_named() -> None:
    spent = Spent()
    spent.add("cheap", 0.001)
    spent.add("dear", 0.1)
    spent.add("cheap too", 0.0)
    assert not spent.too_much()
    assert "most: dear" in str(spent)


def test_the_bound_is_in_pieces_of_work_and_knows_no_machine() -> None:
    for slowness in (0.01, 0.02, 0.08):
        spent = Spent()
        for number in range(3 * TESTS_PER_PIECE):
            spent.add(str(number), PIECES_MAX / (3 * TESTS_PER_PIECE) * slowness * 0.99)
        assert len(spent.pieces_s) == 3
        spent.pieces_s = [slowness, slowness, 10 * slowness]  # the last one was interrupted
        assert not spent.too_much()
        spent.add("more", PIECES_MAX * slowness * 0.02)
        spent.pieces_s = [slowness]
        assert spent.too_much()


def test_no_test_is_no_price() -> None:
    assert not Spent().too_much()


def test_the_same_work_takes_some_time() -> None:
    assert 0.002 < cpu_of_a_piece() < 2


def cpu_of_a_piece() -> float:
    before_s = time.process_time()
    piece()
    return time.process_time() - before_s


def test_the_time_of_a_child_counts() -> None:
    before_s, own_before_s = cpu_s(), time.process_time()
    subprocess.run([sys.executable, "-S", "-c", "sum(range(300_000))"], check=True)
    own_s = time.process_time() - own_before_s
    assert cpu_s() - before_s > own_s + 0.001
