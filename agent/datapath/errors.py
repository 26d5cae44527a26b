"""Refusals of the kernel half, each with a stable reason; the consequences are others' decision."""

import errno
import os
from typing import ClassVar

from control.kit.errors import KernelError


class DatapathError(KernelError):
    """A refusal of a kind we know. `reason` is the log field and the metric label."""

    reason: ClassVar[str] = "kernel_refused"

    def __init__(self, what: str, number: int = 0) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{what}: {name} ({os.strerror(number)})" if number else what)
        self.number = number


class NotPermitted(DatapathError):
    """EPERM: a missing capability, a lockdown, or another program that forbids more."""

    reason = "bpf_not_permitted"


class MapFull(DatapathError):
    reason = "map_full"


LOG_HINT = "`tulle check --pre` shows the verifier's log"
_STATISTICS = ("processed ", "verification time ", "stack depth ", "peak_states ", "mark_read ")


class ProgramRejected(DatapathError):
    """A program that the verifier refuses; its last lines name the instruction and the reason."""

    reason = "program_rejected"

    def __init__(self, what: str, number: int, verifier_log: str) -> None:
        super().__init__(what, number)
        self.verifier_log = verifier_log
        lines = [line.strip() for line in verifier_log.splitlines()]
        said = [line for line in lines if line and not line.startswith(_STATISTICS)]
        self.args = ("; ".join([str(self.args[0]), *said[-1:], LOG_HINT]),)


class CompileFailed(DatapathError):
    reason = "bpf_compile_failed"


class NoCgroup2(DatapathError):
    reason = "cgroup2_missing"


class NoBpffs(DatapathError):
    reason = "bpffs_missing"


class PodRefused(DatapathError):
    """A request that cannot be carried out: no address, no listener, or a bad uid."""

    reason = "pod_refused"
