"""The time for which the host's conntrack remembers a TCP connection that has ended.

Behind kube-proxy it knows a Service's connection by the pod that it was led to. For that long a new
connection of the pod to that server, from the same port, is given another source port on its way.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/proc/sys/net/netfilter")  # our own network namespace's, which is the host's
REMEMBERS_S_MAX = 600.0  # a host may be set to more; the direct path does not wait longer


def remembers_s(folder: Path = FOLDER) -> float:
    """Seconds for which an ended connection is remembered; 0: this host tracks none."""
    try:
        if int((folder / "nf_conntrack_count").read_text()) <= 0:
            return 0.0
        kept_s = int((folder / "nf_conntrack_tcp_timeout_time_wait").read_text())
    except (OSError, ValueError):
        return 0.0  # a kernel without it
    return min(max(float(kept_s), 0.0), REMEMBERS_S_MAX)
