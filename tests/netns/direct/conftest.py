"""Two captured pods of one node that may talk directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kernel.direct_bed import DirectBed, direct_bed


@pytest.fixture
def pair() -> Iterator[DirectBed]:
    with direct_bed() as made:
        yield made
