"""Asks the scheduler for short time slices; changes nothing else about how a process is scheduled.

A worker runs for microseconds and then waits, or yields to other work. Since 6.18 Linux takes a
whole slice from a task that yields, and places a waking task by the length of its slice. With a
short one the worker is soon on the core again, at the price of more switches where it computes for
long. Before 6.12 the kernel ignores the request.
"""

from __future__ import annotations

import ctypes
import os
from struct import Struct
from typing import Final

# The least that the kernel accepts.
SLICE_NS: Final = 100_000
# Linux gives system calls newer than 2011 the same numbers nearly everywhere, but not these.
_NUMBERS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
# struct sched_attr, first version: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES: Final = Struct("=IIQiIQQQ")
_THIS_PROCESS: Final = 0
_SCHED_OTHER: Final = 0
_RUNTIME_AT: Final = 5
_POLICY_AT: Final = 1


def shorten() -> bool:
    """Ask for short slices; True if the kernel took them. Policies other than the usual one
    stay: they were chosen on purpose."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        return False
    set_number, get_number = numbers
    call = ctypes.CDLL(None).syscall
    told = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if call(get_number, _THIS_PROCESS, told, _ATTRIBUTES.size, 0) != 0:
        return False
    fields = list(_ATTRIBUTES.unpack(told.raw))
    if fields[_POLICY_AT] != _SCHED_OTHER:
        return False
    fields[_RUNTIME_AT] = SLICE_NS
    asked = ctypes.create_string_buffer(_ATTRIBUTES.pack(*fields), _ATTRIBUTES.size)
    return bool(call(set_number, _THIS_PROCESS, asked, 0) == 0)
