"""Texts of the Gateway API: durations, hostnames, paths, header names, patterns; checked."""

from __future__ import annotations

import re
from typing import Final

from control.kit.re2 import problem_of
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader

PATH_CHARS_MAX: Final = 1024  # as the CRD
HOSTNAME_CHARS_MAX: Final = 253

_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_DURATION_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")
# Printable, no blanks, no fragment, no query; a percent sign stands before two hex digits.
_PATH = re.compile(r"/(?:[A-Za-z0-9/\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*")
_ODD_PATH = re.compile(r"//|/\.\.?(/|$)|%2[fF]")


def seconds(reader: Reader, key: str) -> float | None:
    """A duration by GEP-2257, such as `1m30s`. None: it is not said."""
    text = reader.text(key)
    if not text:
        return None
    if not _DURATION.fullmatch(text):
        raise reader.invalid(key, f"{text!r} is not a duration like 10s or 1m30s")
    parts = _DURATION_PART.findall(text)
    return round(sum(int(number) * _UNITS_S[unit] for number, unit in parts), 3)


def checked_hostname(text: str, where: str, line: int) -> str:
    if len(text) > HOSTNAME_CHARS_MAX or not _HOSTNAME.fullmatch(text):
        raise Invalid(f"{where}: {text!r} is not a hostname, nor one that begins with *.", line)
    return text


def header_name(reader: Reader, key: str, text: str) -> str:
    """In lower case: names of headers have none."""
    if not _HEADER.fullmatch(text):
        raise reader.invalid(key, f"{text!r} is not the name of a header")
    return text.lower()


def checked_path(reader: Reader, key: str, text: str) -> str:
    """A path of a request as it arrives: whole, with no way around it."""
    if len(text) > PATH_CHARS_MAX or not _PATH.fullmatch(text):
        raise reader.invalid(key, f"{text!r} is not a path")
    if _ODD_PATH.search(text):
        raise reader.invalid(key, f"{text!r}: no path has //, dots alone, or a slash as %2F")
    return text


def checked_regex(reader: Reader, key: str, text: str) -> str:
    """A pattern that RE2 takes."""
    if problem := problem_of(text):
        raise reader.invalid(key, problem)
    return text
