"""Two ends of a tunnel in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority, make_authority
from tests.support.engine.tunnel_memory import Pair


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def pair(authority: Authority) -> Iterator[Pair]:
    made = Pair(authority)
    made.settle()
    yield made
    made.close()
