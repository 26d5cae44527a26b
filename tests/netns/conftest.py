"""One check of the whole run: nothing that these tests made is left on the host. A failed test of
a lab shows the ends of its logs."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.support.kernel import leftovers
from tests.support.lab.mesh_bed import Bed


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    if os.geteuid() != 0:  # then nothing is made
        yield
        return
    before = leftovers.look()
    yield
    left = leftovers.left(before)
    assert not left, "\n".join(["left behind by the tests on the real kernel:", *left])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    bed = getattr(item, "funcargs", {}).get("bed")
    if report.failed and isinstance(bed, Bed) and (words := bed.last_words()):
        report.sections.append(("Logs of the lab", words))
    return report
