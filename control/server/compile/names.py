"""Names that Kubernetes has: whole ones, and beginnings and ends of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from control.model.policy import StringMatchKind

EXACT: Final[StringMatchKind] = StringMatchKind.EXACT
PREFIX: Final[StringMatchKind] = StringMatchKind.PREFIX
SUFFIX: Final[StringMatchKind] = StringMatchKind.SUFFIX

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_HEAD = re.compile(r"(?:[a-z0-9][-a-z0-9]{0,61})?")
_LABEL_TAIL = re.compile(r"(?:[-a-z0-9]{0,61}[a-z0-9])?")
_NAME_CHARS_MAX: Final = 253

# True if a whole name, a beginning, or an end of one can be this text.
Fits = Callable[[str, StringMatchKind], bool]


def is_label(text: str, kind: StringMatchKind) -> bool:
    shape = {EXACT: _LABEL, PREFIX: _LABEL_HEAD, SUFFIX: _LABEL_TAIL}[kind]
    return shape.fullmatch(text) is not None or _LABEL.fullmatch(text) is not None


def is_name(text: str, kind: StringMatchKind) -> bool:
    """DNS labels, joined by dots."""
    parts = text.split(".")
    kinds = [EXACT] * len(parts)
    if kind is PREFIX:
        kinds[-1] = PREFIX
    elif kind is SUFFIX:
        kinds[0] = SUFFIX
    fits = all(is_label(part, how) for part, how in zip(parts, kinds, strict=True))
    return fits and len(text) <= _NAME_CHARS_MAX


def literal(whole: str) -> Fits:
    def fits(text: str, kind: StringMatchKind) -> bool:
        if kind is PREFIX:
            return whole.startswith(text)
        return whole.endswith(text) if kind is SUFFIX else whole == text

    return fits
