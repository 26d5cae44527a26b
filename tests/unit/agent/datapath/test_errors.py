"""Reasons are stable: logs and metrics are made of them."""

from __future__ import annotations

from agent.datapath import errors
from agent.datapath.errors import DatapathError


def test_reasons_are_stable_and_distinct() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    reasons = {kind.__name__: kind.reason for kind in kinds if issubclass(kind, DatapathError)}
    assert reasons == {
        "DatapathError": "kernel_refused",
        "NotPermitted": "bpf_not_permitted",
        "MapFull": "map_full",
        "ProgramRejected": "program_rejected",
        "CompileFailed": "bpf_compile_failed",
        "NoCgroup2": "cgroup2_missing",
        "NoBpffs": "bpffs_missing",
        "PodRefused": "pod_refused",
    }


def test_the_kernels_number_is_told_by_name() -> None:
    refused = errors.NotPermitted("load it", 1)
    assert str(refused) == "load it: EPERM (Operation not permitted)"
    assert str(DatapathError("no such thing")) == "no such thing"
