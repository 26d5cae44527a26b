"""What the kernel can refuse, by a stable reason; carries no decision about what to do then."""

import errno
import os
from typing import ClassVar

from control.kit import errors


class KernelError(errors.KernelError):
    """The kernel said no in a way we know. `reason` is the log field and the metric label."""

    reason: ClassVar[str] = "kernel_refused"

    def __init__(self, what: str, number: int = 0) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{what}: {name} ({os.strerror(number)})" if number else what)
        self.number = number


class NotPermitted(KernelError):
    """EPERM: a missing capability, a lockdown, or another program that forbids company."""

    reason = "bpf_not_permitted"


class MapFull(KernelError):
    reason = "map_full"


class ProgramRejected(KernelError):
    """The verifier's last lines say which instruction and why."""

    reason = "program_rejected"

    def __init__(self, what: str, number: int, verifier_tail: str) -> None:
        super().__init__(what, number)
        self.verifier_tail = verifier_tail


class CompileFailed(KernelError):
    reason = "bpf_compile_failed"


class NoCgroup2(KernelError):
    reason = "cgroup2_missing"


class NoBpffs(KernelError):
    reason = "bpffs_missing"


class PodRefused(KernelError):
    """The request itself cannot be carried out: no address, no listener, a uid that is none."""

    reason = "pod_refused"
