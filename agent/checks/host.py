"""Checks of this host that need no agent: kernel, mounts, a dry load of every program."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from agent import config
from agent.checks.check import Check, Result, judged
from agent.datapath import bpffs, cgroups, programs
from agent.datapath.dry_load import dry_load
from control.kit.errors import KernelError

KERNEL_MIN = (5, 15)  # sk_lookup came with 5.9, netns cookies in every hook we use with 5.15
_BTF = Path("/sys/kernel/btf/vmlinux")
# Consequences of what a kernel lacks; "tcx" is no define of the programs, but a hook.
WITHOUT = {
    programs.DIRECT_FEATURE: "no ring buffer, so nothing goes direct",
    "TULLE_HAS_SET_RETVAL": "no bpf_set_retval, so a refused connect() says EPERM",
    "TULLE_HAS_MPTCP": "no bpf_skc_to_mptcp_sock, so the parts of one connection may part",
    "TULLE_HAS_INGRESS_IFINDEX": "no ingress_ifindex, so the source tells what came by loopback",
    "tcx": "no tcx, so direct segments pass the host's stack",
}


def host_checks(
    cgroup_root: Path | None = None,
    mount_point: Path = config.DEFAULT_BPFFS,
    cache: Path = config.DEFAULT_CACHE,
) -> list[Check]:
    """All checks of this host. Loads every program, attaches none; blocks for less than 1 s."""
    return [
        kernel_version(platform.release()),
        _rights(),
        cgroup2(cgroup_root),
        _btf(),
        _bpffs(mount_point),
        *_programs(cache),
    ]


def kernel_version(release: str) -> Check:
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    wanted = ".".join(map(str, KERNEL_MIN))
    return judged(
        "TUL0101",
        "kernel",
        f"the kernel is {wanted} or newer",
        error="" if version >= KERNEL_MIN else f"this one is {release}",
        hint="upgrade the node's kernel; Ubuntu 22.04 and Debian 12 are new enough",
    )


def _rights() -> Check:
    return judged(
        "TUL0102",
        "kernel",
        "running as root",
        error="" if os.geteuid() == 0 else f"running as user {os.geteuid()}",
        hint="run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
    )


def cgroup2(root: Path | None, mountinfo: str | None = None) -> Check:
    """`root` as given by the operator; None: found in `mountinfo` (our own by default)."""
    code, category, description = "TUL0201", "cgroup", "a cgroup2 file system is mounted"
    try:
        found = root or cgroups.find_root(mountinfo)
    except (KernelError, OSError) as exc:
        hint = "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with the unified hierarchy"
        return judged(code, category, description, error=str(exc), hint=hint)
    if not (found / "cgroup.procs").exists():
        hint = "name the mount point with --cgroup-root"
        return judged(code, category, description, error=f"{found} is not one", hint=hint)
    return judged(code, category, f"{description} ({found})")


def _btf() -> Check:
    return judged(
        "TUL0301",
        "btf",
        "the kernel describes its types (BTF)",
        error="" if _BTF.exists() else f"no {_BTF}",
        hint="today's programs do not need it; bpftool shows less without it",
        level=Result.WARNING,
    )


def _bpffs(mount_point: Path) -> Check:
    return judged(
        "TUL0401",
        "bpffs",
        f"a BPF file system is mounted on {mount_point}",
        error="" if bpffs.is_bpffs(mount_point) else "none is",
        hint=f"mount -t bpf bpf {mount_point} (the agent does so when it starts)",
        level=Result.WARNING,
    )


def _programs(cache: Path) -> Iterator[Check]:
    hint = "install python3-bpfcc; the compiler's message is in the agent's log"
    if os.geteuid() != 0:
        hint = "run as root: see TUL0102"
    try:
        loaded = dry_load(cache)
        found = (*programs.kernel_features(), *(("tcx",) if programs.has_tcx() else ()))
    except (KernelError, OSError) as exc:
        yield judged("TUL0501", "programs", "the eBPF programs compile", error=str(exc), hint=hint)
        return
    yield judged("TUL0501", "programs", "the eBPF programs compile")
    yield features(found)
    for program in loaded:
        yield judged(
            "TUL0502",
            "programs",
            f"the verifier accepts {program.name}",
            error="" if program.ok else program.verifier_log,
            hint="please report this with the kernel's version and the whole log (-v)",
        )


def features(found: Collection[str]) -> Check:
    """A fit kernel may lack any of them: named, and never a warning."""
    absent = [consequence for feature, consequence in WITHOUT.items() if feature not in found]
    said = f"all but: {'; '.join(absent)}" if absent else "all there are"
    return judged("TUL0503", "programs", f"optional parts of the kernel are used ({said})")
