"""The desk at which most tests of the ledger begin."""

from __future__ import annotations

import pytest

from tests.unit.agent.direct.desk import Desk, desk_in_force


@pytest.fixture
def desk() -> Desk:
    return desk_in_force()
