"""Stable reasons for which no kubelet is recognised, explained, with a remedy each."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Unrecognised(Enum):
    """The value is (word, meaning, remedy)."""

    OFF = ("off", "switched off", "--kubelet-port names the port of the node's kubelet")
    SEARCHING = ("searching", "the agent has just started", "ask again in a second")
    NOT_LISTENING = (
        "not_listening",
        "no process of this node listens on the kubelet's port",
        "--kubelet-port must be status.daemonEndpoints.kubeletEndpoint.Port of the node",
    )
    NO_PROCESS = (
        "no_process",
        "somebody listens on the kubelet's port, and no process that has it can be seen",
        "run the agent with hostPID, hostNetwork and CAP_SYS_PTRACE",
    )
    IN_POD = (
        "in_pod",
        "a pod listens on the kubelet's port",
        "look for a hostNetwork pod that took it",
    )
    SEVERAL = (
        "several",
        "processes of several cgroups listen on the kubelet's port",
        "give the kubelet a port of its own, and --kubelet-port that one",
    )
    ROOT_CGROUP = (
        "root_cgroup",
        "the kubelet runs in the root cgroup: its program would vouch for every process",
        "start the kubelet as a service of systemd, or in a cgroup of its own",
    )
    HOLDS_PODS = (
        "holds_pods",
        "the cgroups of pods are below the kubelet's own: its program would vouch for pods",
        "start the kubelet in a cgroup of its own, beside that of the pods",
    )
    NO_CGROUP = (
        "no_cgroup",
        "the kubelet's cgroup is not below the cgroup2 mount that the agent sees",
        "mount the host's /sys/fs/cgroup, or name it with --cgroup-root",
    )
    KERNEL = (
        "kernel",
        "the kernel, or its /proc, refused",
        "the agent's log has kubelet.failed with what it said",
    )

    @property
    def word(self) -> str:
        return self.value[0]

    @property
    def meaning(self) -> str:
        return self.value[1]

    @property
    def remedy(self) -> str:
        return self.value[2]


MEANINGS: Final = {each.word: each.meaning for each in Unrecognised}
