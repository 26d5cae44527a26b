"""Hands back memory that only the start of a process needed: garbage, free heap, pages of files.

A node carries three of our processes; most of what each maps is code and constants of interpreter
and libraries that were needed once. Such pages stay in the page cache: one that is needed again
costs a minor fault, not a read.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control.kit.log import event

log = logging.getLogger("memory")

# First when start-up is over: connections made, first state received, first certificates issued.
# Again when the first traffic has been served, whose code ran for the first time too.
SETTLE_AT_S = (5.0, 20.0)
MADV_DONTNEED = 4  # asm-generic/mman-common.h
# For a process in which nothing may wait for the collector: young objects are examined 2,000 at
# once (0.2 ms), those that are left of them 4,000 at once (0.4 ms), and all of them almost never.
# It is the same work in larger pieces: 20,000 at once took 10 ms of a busy machine.
_YOUNG_MAX, _YOUNG_ROUNDS_MAX, _AGED_ROUNDS_MAX = 2_000, 2, 5_000
AGED_MAX = 20_000  # for such a process: 10 ms


def spare_collector() -> None:
    """Tune the collector of a process whose loop must not stall. By default it examines every
    object whenever they have grown by a quarter: 10 ms for the modules alone, twice that with
    thousands of open connections, which leave no cycles behind anyway. Call at the start;
    `release()` now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_MAX, _YOUNG_ROUNDS_MAX, _AGED_ROUNDS_MAX)


def examine_young() -> None:
    """Examine what is young, between two slices of work. By itself the collector counts what came
    less what went: work that puts new objects in place of old ones leaves it tens of thousands, to
    be looked at in one go."""
    gc.collect(1)


def freeze() -> None:
    """Freeze what was just loaded and will stay, unexamined: 50,000 pods take most of a second to
    look at. Young cycles go first: what is frozen is never collected."""
    if gc.isenabled():  # else all there is would be young
        gc.collect(1)
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is examined inside, and what is there at its end is frozen: for bounded work that
    makes what stays. Reading and compiling 50,000 pods leaves 305 objects in cycles, and looking
    for them took a twentieth of the start."""
    gc.disable()
    try:
        yield
        freeze()
    finally:
        gc.enable()


def settle(aged_max: int | None = None) -> None:
    """Freeze the objects that start-up leaves: they will stay, so the collector may skip them."""
    _collect(aged_max)
    gc.freeze()
    release(aged_max)


def release(aged_max: int | None = None) -> None:
    """Collect, and hand free memory and pages of files back. Takes a few milliseconds, and minor
    faults for what is needed again. `aged_max`: more objects than that are frozen, not looked at.
    """
    _collect(aged_max)
    libc = ctypes.CDLL(None, use_errno=True)
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:  # glibc only
        trim(0)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    released = 0
    for start, end in unwritten_mappings(_mappings()):
        if libc.madvise(start, end - start, MADV_DONTNEED) == 0:
            released += end - start
    event(log, logging.DEBUG, "memory.released", file_bytes=released)


def _collect(aged_max: int | None) -> None:
    """All other threads stand still while the collector looks: 140 ms for 300,000 objects, which a
    change of 50,000 pods makes."""
    if aged_max is not None and len(gc.get_objects(generation=2)) > aged_max:
        freeze()
    else:
        gc.collect()


def _mappings() -> bytes:
    try:
        return Path("/proc/self/smaps").read_bytes()
    except OSError:  # a kernel without it: nothing is handed back
        return b""


def resident_bytes() -> int:
    """Resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ +(/?)|^Anonymous: +([0-9]+)", re.MULTILINE
)


def unwritten_mappings(smaps: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each mapping of a file that cannot be written to, and never was.

    Only these: each of their pages is equal to its file's. Mappings that were written once
    (relocations, data) have private copies, which MADV_DONTNEED would lose.
    """
    mapping: tuple[int, int] | None = None
    for start, end, rights, is_file, copied in _MAPPING.findall(smaps):
        if rights:
            is_ours = is_file and rights in (b"r-xp", b"r--p")
            mapping = (int(start, 16), int(end, 16)) if is_ours else None
        elif mapping is not None and copied == b"0":
            yield mapping
