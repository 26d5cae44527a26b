"""Directories of the cgroup2 tree on which a program may sit, for the kubelet that is in one."""

from __future__ import annotations

import os
from pathlib import Path

from agent.datapath.process_cgroup import DIRECTORIES_MAX
from agent.kubelet.reasons import Unrecognised

_PODS = "kubepods"  # in the name that every kubelet gives to the cgroup of its pods


def is_of_pod(directory: Path, root: Path) -> bool:
    return any(_PODS in part for part in directory.relative_to(root).parts)


def unfit(directory: Path, root: Path) -> Unrecognised | None:
    """The reason why a program on it would vouch for more than a kubelet; None: it would not."""
    if directory == root:
        return Unrecognised.ROOT_CGROUP
    for count, (_, names, _) in enumerate(os.walk(directory)):
        if count >= DIRECTORIES_MAX or any(_PODS in name for name in names):
            return Unrecognised.HOLDS_PODS
    return None
