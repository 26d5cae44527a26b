"""Every reason that the ledger can give is explained."""

from __future__ import annotations

import ast
import inspect

from agent.direct.ledger import Ledger
from agent.direct.reasons import MEANINGS


def test_every_reason_has_a_meaning() -> None:
    source = ast.parse("class X:\n" + inspect.getsource(Ledger.reason))
    texts = {
        node.value
        for statement in ast.walk(source)
        if isinstance(statement, ast.Return) and statement.value is not None
        for node in ast.walk(statement.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert texts - {""} <= MEANINGS.keys()
    assert "no_direct" in MEANINGS  # the path without grants gives it
