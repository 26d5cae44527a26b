"""Words for a name that is not there: the one that was probably meant, and those there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from control.kit.lazy import lazy

if TYPE_CHECKING:
    import difflib
else:  # 0.1 MiB that few processes ever need
    difflib = lazy("difflib")

# A line of names that is still read; a mesh may have thousands.
NAMES_SHOWN_MAX: Final = 10


def absent(kind: str, wrong: str, known: Iterable[str], *, shown_max: int = NAMES_SHOWN_MAX) -> str:
    """`no node 'n3', perhaps 'n1'; there are: n1, n2`."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, 1)
    meant = f", perhaps {near[0]!r}" if near else ""
    return f"no {kind} {wrong!r}{meant}; there are: {listed(names, shown_max)}"


def listed(names: list[str], shown_max: int = NAMES_SHOWN_MAX) -> str:
    """The first names, and the number of the others."""
    if not names:
        return "none"
    more = len(names) - shown_max
    return ", ".join(names[:shown_max]) + (f" and {more} more" if more > 0 else "")
