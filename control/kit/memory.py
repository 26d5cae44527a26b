"""Hands back memory that only the start of a process needed: garbage, free heap, code pages.

A node carries three of our processes; most of what each maps is interpreter and library code that
ran once. Such pages stay in the page cache: one that is needed again costs a minor fault, not a
read.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
from collections.abc import Iterator
from pathlib import Path

from control.kit.log import event

log = logging.getLogger("memory")

# First when start-up is over: connections made, first state received, first certificates issued.
# Again when the first traffic has been served, whose code ran for the first time too.
SETTLE_AT_S = (5.0, 20.0)
MADV_DONTNEED = 4  # asm-generic/mman-common.h
# For a process in which nothing may wait for the collector: young objects are examined 2,000 at
# once (0.2 ms), older ones 20,000 at once (2 ms), and all of them almost never.
_YOUNG_MAX, _YOUNG_ROUNDS_MAX, _AGED_ROUNDS_MAX = 2_000, 10, 1_000


def spare_collector() -> None:
    """Tune the collector of a process whose loop must not stall. By default it examines every
    object whenever they have grown by a quarter: 10 ms for the modules alone, twice that with
    thousands of open connections, which leave no cycles behind anyway. Call at the start;
    `release()` now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, _YOUNG_ROUNDS_MAX, _AGED_ROUNDS_MAX)


def freeze() -> None:
    """Freeze what was just loaded and will stay, unexamined: 50,000 pods take most of a second to
    look at. Young cycles go first: what is frozen is never collected."""
    gc.collect(1)
    gc.freeze()


def settle() -> None:
    """Freeze the objects that start-up leaves: they will stay, so the collector may skip them."""
    gc.collect()
    gc.freeze()
    release()


def release() -> None:
    """Collect, and hand free memory and code pages back. Takes a millisecond or two, and minor
    faults for code that runs again."""
    gc.collect()
    libc = ctypes.CDLL(None, use_errno=True)
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:  # glibc only
        trim(0)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    released = 0
    for start, end in code_mappings(Path("/proc/self/maps").read_text()):
        if libc.madvise(start, end - start, MADV_DONTNEED) == 0:
            released += end - start
    event(log, logging.DEBUG, "memory.released", code_bytes=released)


def resident_bytes() -> int:
    """Resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def code_mappings(maps: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each file mapping that is executable and not writable.

    Only these: a page of such a mapping is always equal to its file's. Mappings that were written
    once (relocations, data) are private copies, which MADV_DONTNEED would lose.
    """
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            yield int(start, 16), int(end, 16)
