"""The system call: its errors are ours, with or without the right to use it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.datapath import bpfsys
from agent.datapath.bpfsys import KernelObject
from agent.datapath.errors import DatapathError

NO_COMMAND = 9999


def test_a_refusal_names_what_it_was_for_and_its_number() -> None:
    assert bpfsys.attempt(NO_COMMAND, bytes(8)).number
    with pytest.raises(DatapathError, match="do the impossible: E") as refused:
        bpfsys.call(NO_COMMAND, bytes(8), "do the impossible")
    assert refused.value.number


def test_only_an_absence_is_none() -> None:
    with pytest.raises(DatapathError, match="look at nothing"):
        bpfsys.find(bpfsys.OBJECT_INFO, struct.pack("<IIQ", 2**31 - 1, 0, 0), "look at nothing")


def test_a_pin_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatapathError, match=r"open .*absent"):
        KernelObject.open(tmp_path / "absent")


def test_names_are_cut_and_buffers_are_never_empty() -> None:
    assert bpfsys.object_name("pods") == b"pods" + bytes(12)
    assert bpfsys.object_name("a" * 99) == b"a" * 15 + b"\0"
    assert len(bpfsys.buffer(b"")) == 1
    assert bpfsys.buffer(b"abc").raw == b"abc"


def test_an_object_is_closed_once() -> None:
    opened = KernelObject(-1)
    with opened:
        pass
    opened.close()
    assert opened.fd == -1
