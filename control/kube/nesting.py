"""JSON that is nested deeper than a decoder goes. Pure.

An API server takes 10,000 levels, in a policy's status or in any field that it does not know, and a
decoder of Python some 1,000. Whoever may write one object must not end whoever reads them all. So
what is too deep to mean anything counts as null, and the rest is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

DEPTH_MAX = 64  # a pod needs 12; a list of pods in an event two more
_MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)

T = TypeVar("T")


def decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    """The result of `decode`, for the upper levels alone if it cannot go deeper."""
    try:
        return decode(data)
    except RecursionError:
        return decode(shallow(data))


def shallow(data: bytes, depth_max: int = DEPTH_MAX) -> bytes:
    """The JSON with null in place of each array and object below that many others."""
    parts: list[bytes] = []
    depth = since = 0
    for mark in _MARKS.finditer(data):
        first = data[mark.start()]
        if first in b"[{":
            if depth == depth_max:
                parts += data[since : mark.start()], b"null"
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == depth_max:
                since = mark.end()
    if depth <= depth_max:
        parts.append(data[since:])
    return b"".join(parts)
