"""The state of a lab from its file and /proc, and where the logs are."""

from __future__ import annotations

import os

from agent.lab import report
from agent.lab.process import Process


def test_memory_is_that_of_a_process_and_all_below_it() -> None:
    assert report.rss_bytes(os.getpid()) > report.MIB


def test_a_process_that_has_gone_takes_none() -> None:
    assert report.rss_bytes(2**22 + 1) == 0, "above the largest pid"


def test_a_dead_process_has_no_number_that_is_anothers_now() -> None:
    shown = report._process(Process(os.getpid(), 1))
    assert shown == {"state": "dead", "pid": None, "rss_mib": None}
