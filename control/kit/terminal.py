"""Standard output and error of a command: any encoding, a full disk, a closed pipe, no terminal.

A reader that has gone, as in `tulle … | head -1`, is no error, and the exit code still says what
the command found. Output that could not be written for another reason is one.
"""

from __future__ import annotations

import codecs
import encodings.ascii
import errno
import io
import os
import sys
from typing import IO, Any

ERRORS = "tulle"  # our handler of characters that the terminal's encoding has not
ASCII = "tulle-ascii"  # under its own name click would write UTF-8 instead
# Characters of our own messages, for terminals that know only ASCII.
_SPELLED = {"√": "ok", "‼": "!!", "×": "x", "…": "...", "\N{EN DASH}": "-", "→": "->"}


class Sink(io.RawIOBase):
    """A file descriptor, or none; the first failure is kept, and what follows is dropped."""

    def __init__(self, fd: int | None) -> None:
        self.failure: OSError | None = None
        self._fd = fd

    def write(self, data: Any, /) -> int:
        if self.failure is None:
            try:
                if self._fd is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                return os.write(self._fd, data)
            except OSError as exc:
                self.failure = exc
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._fd is None:
            raise io.UnsupportedOperation("closed")
        return self._fd

    def isatty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)


def spell(error: UnicodeError) -> tuple[str, int]:
    """Handler for an encoder: our own signs in ASCII, `?` for all others."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_SPELLED.get(each, "?") for each in part), error.end


def _codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ASCII:
        return None
    found = encodings.ascii.getregentry()
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        found.streamreader,
        found.streamwriter,
        found.incrementalencoder,
        found.incrementaldecoder,
        ASCII,
    )


def stream_over(sink: Sink, encoding: str) -> io.TextIOWrapper:
    """Text in this encoding, whatever characters are in it."""
    codecs.register_error(ERRORS, spell)
    codecs.register(_codec)
    chosen = ASCII if codecs.lookup(encoding).name == "ascii" else encoding
    buffered = io.BufferedWriter(sink)
    return io.TextIOWrapper(buffered, chosen, ERRORS, line_buffering=sink.isatty())


class Terminal:
    """Both standard streams, put in place of Python's while the context lasts."""

    def __enter__(self) -> Terminal:
        self._before = (sys.stdout, sys.stderr)
        self._out = Sink(_fd(sys.stdout))
        if not _in_memory(sys.stdout):
            sys.stdout = stream_over(self._out, _encoding(sys.stdout))
        if not _in_memory(sys.stderr):
            errors = stream_over(Sink(_fd(sys.stderr)), _encoding(sys.stderr))
            errors.reconfigure(write_through=True)
            sys.stderr = errors
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = self._before

    def failure(self) -> str:
        """The reason for which output is missing; empty when it is all written or not wanted."""
        sys.stdout.flush()
        why = self._out.failure
        return "" if why is None or isinstance(why, BrokenPipeError) else str(why.strerror)


def reader_gone() -> bool:
    """True when nobody reads on: a command that would go on for ever should end."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Sink) and raw.failure is not None


def is_interactive(stream: IO[str] | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _in_memory(stream: IO[str] | None) -> bool:
    """True for a stream that stands in for a descriptor, as a test's does."""
    return stream is not None and _fd(stream) is None


def _fd(stream: IO[str] | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def _encoding(stream: IO[str] | None) -> str:
    return str(getattr(stream, "encoding", None) or "utf-8")
