"""With CI=true nothing may be skipped: a kernel that refuses eBPF, or a missing peer, is a failure
that says so. With `--reruns` (the gate) few tests may need a second try, and each is named."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter

IN_CI = os.environ.get("CI") == "true"

AGAIN_MAX = 2
"""Tests of one run that may fail once and pass at the second try. More is no noise of a small
machine: the run fails."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which CI=true forbids"
    return report


def again(terminal: TerminalReporter) -> list[str]:
    """Tests that were run a second time."""
    return sorted({report.nodeid for report in terminal.stats.get("rerun", [])})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and session.exitstatus == 0 and len(again(terminal)) > AGAIN_MAX:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    tests = again(terminalreporter)
    if tests:
        terminalreporter.section(f"run a second time: {len(tests)} (at most {AGAIN_MAX})")
        for report in terminalreporter.stats["rerun"]:
            terminalreporter.write_line(f"FLAKY {report.nodeid}")
            terminalreporter.write_line(report.longreprtext)
