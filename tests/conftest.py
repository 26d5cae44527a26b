"""With CI=true nothing may be skipped: a kernel that refuses eBPF, or a missing peer, is a failure
that says so. With `--reruns` (the gate) few tests may need a second try, and each is named. What
tests share (a lab, a mesh) is made anew after one of them has failed: it may be broken, and would
take the second try and all later tests with it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter

IN_CI = os.environ.get("CI") == "true"

AGAIN_MAX = 4
"""Tests of one run that may fail once and pass at the second try. More is no noise of a small
machine: the run fails."""


FAILED = pytest.StashKey[bool]()

# In the background of a shell an interrupt is ignored, by our children too; some tests send one.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # Python 3.11 parses no source inside of another parse. pytest parses a failed test's; what a
    # collection in the middle of that destroys may complain, and is told with its own source.
    gc.disable()
    try:
        report = yield
    finally:
        gc.enable()
    had_failed = call.when != "setup" and item.stash.get(FAILED, False)  # in this try
    item.stash[FAILED] = had_failed or report.failed
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    except BaseException:
        item.stash[FAILED] = True
        raise
    finally:
        if item.stash.get(FAILED, False):
            finish_shared(item)


def finish_shared(item: pytest.Item) -> None:
    """Tear down what this test shares with others; whoever needs it next has it made anew. What the
    whole run shares stays: it only looks on."""
    assert isinstance(item, pytest.Function)
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        for each in definitions:
            if each.scope not in ("function", "session"):
                each.finish(item._request)  # type: ignore[arg-type]  # it asks for its node alone


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
            for title, text in report.sections:
                terminalreporter.write_line(f"-- {title}\n{text}")
