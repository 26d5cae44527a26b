"""Regular expressions for RE2, which has fewer words than Python: told before somebody else refuses
a whole configuration because of one. Pure.
"""

from __future__ import annotations

import re
from re import _constants as ops  # type: ignore[attr-defined]  # Python's own parser has no type
from re import _parser as parser  # type: ignore[attr-defined]  # as above
from typing import Any

LETTERS_MAX = 1024
REPEATS_MAX = 1000  # RE2's own bound of {n,m}, and of one in another
# Instructions that RE2 makes of it, estimated from above. A tenth of what its memory is for, and of
# what an Envoy of ours is told to take.
SIZE_MAX = 10_000
_CLASS_SIZE = 24  # a class of letters, in UTF-8

_PLAIN = {
    ops.LITERAL,
    ops.NOT_LITERAL,
    ops.ANY,
    ops.IN,
    ops.RANGE,
    ops.NEGATE,
    ops.CATEGORY,
}
_PLACES = {
    ops.AT_BEGINNING,
    ops.AT_BEGINNING_STRING,
    ops.AT_END,
    ops.AT_BOUNDARY,
    ops.AT_NON_BOUNDARY,
}
_REPEATS = {ops.MAX_REPEAT, ops.MIN_REPEAT}
# Escapes that Python reads and RE2 does not, or otherwise; `(?` with more than the usual.
_FOREIGN = re.compile(r"\\(?:[ZuUN]|[1-9])|\(\?(?![:)imsU-]|P<)")


def problem_of(pattern: str) -> str:
    """Reason why RE2 might not take a pattern, for people; "" if it does. An empty one is none.

    Careful: some that RE2 knows and Python does not (`\\pL`, `\\z`, `[[:alpha:]]`) are refused.
    """
    if not pattern:
        return "an empty regular expression"
    if len(pattern) > LETTERS_MAX:
        return f"a regular expression has at most {LETTERS_MAX} letters"
    if found := _FOREIGN.search(pattern):
        return f"RE2 has no {found[0]}"
    if "[[:" in pattern:
        return "no named classes: [a-z] instead of [[:lower:]]"
    try:
        parsed = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        return f"not a regular expression: {exc}"
    problem = _problem(parsed, 1)
    if not problem and _size(parsed) > SIZE_MAX:
        return "a regular expression that is too large when its repeats are written out"
    return problem


def _problem(parsed: Any, times: int) -> str:
    """`times`: how often it may be repeated as a whole."""
    for op, argument in parsed:
        if op in _PLAIN:
            continue
        if op is ops.AT:
            found = "" if argument in _PLACES else "this place"
        elif op in _REPEATS:
            least, most, inner = argument
            counts = {each for each in (least, most) if each is not ops.MAXREPEAT}
            often = times * max(counts | {1})
            over = often > REPEATS_MAX
            found = f"repeats over {REPEATS_MAX}" if over else _problem(inner, often)
        elif op is ops.SUBPATTERN:
            found = _problem(argument[3], times)
        elif op is ops.BRANCH:
            found = next((one for each in argument[1] if (one := _problem(each, times))), "")
        else:
            found = f"RE2 has no {str(op).lower().replace('_', ' ')}"
        if found:
            return found
    return ""


def _size(parsed: Any) -> int:
    total = 0
    for op, argument in parsed:
        if op in _REPEATS:
            least, most, inner = argument
            total += (_size(inner) + 1) * (least + 1 if most is ops.MAXREPEAT else most) + 2
        elif op is ops.SUBPATTERN:
            total += _size(argument[3]) + 2
        elif op is ops.BRANCH:
            total += sum(_size(each) + 2 for each in argument[1])
        elif op is ops.LITERAL:
            total += 4
        elif op is ops.AT:
            total += 1
        else:
            total += _CLASS_SIZE
    return total


def quoted(text: str) -> str:
    """A pattern that matches exactly this text."""
    return re.sub(r"([^A-Za-z0-9_/-])", r"\\\1", text)
