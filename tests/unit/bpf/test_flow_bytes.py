"""verdict.h on what a direct connection has moved, from the kernel's numbers to the apps' bytes."""

from __future__ import annotations

import ctypes
import enum
from itertools import pairwise

import pytest

from bpf import layout
from tests.unit.bpf.c_build import build

SOURCE = """
#include "verdict.h"
void follow(struct direct_socket *flow, unsigned from, unsigned to, unsigned long received)
{ flow_state(flow, from, to, received); }
unsigned long sent(const struct direct_socket *flow, unsigned long acked)
{ return bytes_sent(flow, acked); }
unsigned long received(const struct direct_socket *flow, unsigned long counted)
{ return bytes_received(flow, counted); }
int aborted(const struct direct_socket *flow, unsigned from)
{ return was_aborted(flow, from); }
"""


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("flow")
    return ctypes.CDLL(str(build(folder, "flow.so", SOURCE, "-shared", "-fPIC")))


class Tcp(enum.IntEnum):
    ESTABLISHED = 1
    SYN_SENT = 2
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    CLOSING = 11


@pytest.mark.parametrize(
    ("way", "acked", "counted", "sent", "received", "aborted"),
    [
        # The kernel counts our SYN and each FIN that is through as one byte.
        ("SYN_SENT CLOSE", 0, [0, 0], 0, 0, False),
        ("SYN_SENT ESTABLISHED CLOSE", 11, [0, 0, 5], 10, 5, True),
        ("SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", 12, [0, 0, 6, 6, 6], 10, 5, False),
        ("SYN_SENT ESTABLISHED CLOSE_WAIT CLOSE", 11, [0, 0, 6, 6], 10, 5, True),
        # We close first: with the other's FIN, and let go before it.
        ("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", 12, [0, 0, 0, 0, 6], 10, 5, False),
        ("SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", 12, [0, 0, 5, 5, 5], 10, 5, False),
        ("SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE", 11, [0, 0, 5, 5], 10, 5, True),
        ("SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING CLOSE", 12, [0, 0, 5, 6, 6], 10, 5, False),
    ],
)
def test_a_flows_bytes_are_the_applications(
    c: ctypes.CDLL,
    way: str,
    acked: int,
    counted: list[int],
    sent: int,
    received: int,
    aborted: bool,
) -> None:
    states = [Tcp[name] for name in way.split()]
    flow = layout.DirectSocket()
    for (before, after), now in zip(pairwise(states), counted[1:], strict=True):
        c.follow(ctypes.byref(flow), before, after, ctypes.c_ulong(now))
    assert c.sent(ctypes.byref(flow), ctypes.c_ulong(acked)) == sent
    assert c.received(ctypes.byref(flow), ctypes.c_ulong(counted[-1])) == received
    assert bool(c.aborted(ctypes.byref(flow), states[-2])) is aborted
