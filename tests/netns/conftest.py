"""One check of the whole run: nothing that these tests made is left on the host."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.kernel import leftovers


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    if os.geteuid() != 0:  # then nothing is made
        yield
        return
    before = leftovers.look()
    yield
    left = leftovers.left(before)
    assert not left, "\n".join(["left behind by the tests on the real kernel:", *left])
