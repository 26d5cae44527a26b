"""The C sources keep rules that no compiler checks."""

from __future__ import annotations

import re

import pytest

from agent.datapath import programs

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# Contexts and kernel sockets. Map values are memory like any other.
PLAIN_ACCESS = re.compile(r"\b(?:ctx|sk)->\w+")


@pytest.mark.parametrize("name", sorted(path.name for path in programs.SOURCE.glob("*.[ch]")))
def test_contexts_and_sockets_are_read_and_written_by_offset_only(name: str) -> None:
    code = COMMENT.sub("", (programs.SOURCE / name).read_text())
    assert PLAIN_ACCESS.findall(code) == []
