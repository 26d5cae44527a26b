"""The rule about a vouched SYN of the kubelet, built by plain cc."""

from __future__ import annotations

import ctypes

import pytest

from bpf import layout
from tests.unit.bpf.c_build import build

SOURCE = """
#include "verdict.h"
int probes(const struct vouched *vouched, const struct local *pod, unsigned long now)
{ return probe_holds(vouched, pod, now); }
"""


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("probe")
    return ctypes.CDLL(str(build(folder, "probe.so", SOURCE, "-shared", "-fPIC")))


@pytest.mark.parametrize(
    ("probe", "age", "workload", "holds"),
    [
        (1, layout.PROBE_GRACE_NS - 1, 3, 1),
        (1, layout.PROBE_GRACE_NS, 3, 0),
        (1, 0, 4, 0),  # the address is another pod's by now
        (1, 0, 0, 0),
        (0, 0, 3, 0),  # vouched for as a direct connection: another rule
    ],
)
def test_a_probe_is_for_one_pod_and_not_for_ever(
    c: ctypes.CDLL, probe: int, age: int, workload: int, holds: int
) -> None:
    now = 10**12
    vouched = layout.Vouched(at_ns=now - age, destination=3, probe=probe)
    local = layout.Local(workload=workload)
    assert c.probes(ctypes.byref(vouched), ctypes.byref(local), ctypes.c_ulong(now)) == holds
