"""Names that are kept for a client, in bytes."""

from __future__ import annotations

import pytest

from control.server.callers.refusals import CallRefusal
from control.server.xds.names import NAME_CHARS_MAX, NAME_COST_BYTES, BadRequest, KeptNames


def test_a_name_costs_its_letters_and_what_is_around_them() -> None:
    names = KeptNames()
    names.keep("abc")
    names.keep("x" * NAME_CHARS_MAX)
    assert names.size_bytes == 2 * NAME_COST_BYTES + 3 + NAME_CHARS_MAX
    names.release("abc")
    assert names.size_bytes == NAME_COST_BYTES + NAME_CHARS_MAX


def test_a_name_has_a_length() -> None:
    names = KeptNames()
    with pytest.raises(BadRequest) as caught:
        names.keep("x" * (NAME_CHARS_MAX + 1))
    assert caught.value.why is CallRefusal.BAD_NAME
    assert names.size_bytes == 0
