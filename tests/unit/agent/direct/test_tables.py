"""The kernel's tables and those in memory have what the direct path needs."""

from __future__ import annotations

import inspect

from agent.datapath.tables import DirectTables
from agent.direct.tables import Tables
from tests.support.kernel.direct_tables import FakeTables


def test_both_kinds_of_tables_can_be_called_alike() -> None:
    wanted = [name for name, member in vars(Tables).items() if inspect.isfunction(member)]
    methods = [name for name in wanted if not name.startswith("_")]
    assert "put_service" in methods
    for name in methods:
        expected = inspect.signature(getattr(Tables, name)).parameters.keys()
        for kind in (DirectTables, FakeTables):
            assert inspect.signature(getattr(kind, name)).parameters.keys() == expected, name
