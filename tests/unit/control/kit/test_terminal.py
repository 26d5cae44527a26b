"""Output of a command: a full disk, a closed pipe, no descriptor, and any encoding."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.terminal import Sink, stream_over


def test_a_full_disk_is_kept_as_the_failure() -> None:
    with open("/dev/full", "wb") as file:
        sink = Sink(file.fileno())
        stream = stream_over(sink, "utf-8")
        print("x" * 100_000, file=stream, flush=True)
        print("more", file=stream, flush=True)
        assert sink.failure is not None
        assert sink.failure.errno == errno.ENOSPC


def test_a_reader_that_has_gone_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = Sink(writing)
    print("x", file=stream_over(sink, "utf-8"), flush=True)
    os.close(writing)
    assert isinstance(sink.failure, BrokenPipeError)


def test_no_descriptor_is_a_failure_only_for_what_is_written() -> None:
    sink = Sink(None)
    stream = stream_over(sink, "utf-8")
    stream.flush()
    assert sink.failure is None
    print("x", file=stream, flush=True)
    assert sink.failure is not None
    assert sink.failure.errno == errno.EBADF
    assert not stream.isatty()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"ok !! x ... ?\n"),
        ("ANSI_X3.4-1968", b"ok !! x ... ?\n"),
        ("latin-1", b"ok !! \xd7 ... \xfc\n"),
        ("utf-8", "√ ‼ × … ü\n".encode()),
    ],
)
def test_our_signs_in_every_encoding(tmp_path: Path, encoding: str, expected: bytes) -> None:
    with open(tmp_path / "out", "wb") as file:
        print("√ ‼ × … ü", file=stream_over(Sink(file.fileno()), encoding), flush=True)
    assert (tmp_path / "out").read_bytes() == expected


@given(st.text(st.characters()), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_any_text_goes_out(text: str, encoding: str) -> None:
    with open("/dev/null", "wb") as file:
        sink = Sink(file.fileno())
        stream = stream_over(sink, encoding)
        stream.write(text)
        stream.write("\udc80")  # half a character, as a name of a file may have
        stream.flush()
        assert sink.failure is None
