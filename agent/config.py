"""The operator's choices: read once from flags and environment, then passed around whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from control.kit.errors import ConfigError

DEFAULT_RUN_DIR = Path("/run/tulle")
DEFAULT_BPFFS = Path("/sys/fs/bpf")
DEFAULT_CACHE = Path("/var/cache/tulle/bpf")
# Peers learn from the control plane, with one push, that a pod leaves; then they stop using HBONE.
DEFAULT_DRAIN_S = 2.0
# Enrolment leaves open connections as they are, and so does its end, for so long.
DEFAULT_LINGER_S = 30.0
# Every distribution's; a node's object has it in status.daemonEndpoints.kubeletEndpoint.Port.
DEFAULT_KUBELET_PORT = 10250
DEFAULT_CNI_PROGRAM = Path("/usr/lib/tulle/tulle-cni")
DEFAULT_STATE_DIR = Path("/var/lib/tulle")
# Cluster services that others wait for. They count only while they are outside the mesh.
DEFAULT_EXEMPT = "kube-system,tulle-system"
LOCK = "agent.lock"  # in a node's folder: whoever has it is the agent


@dataclass(frozen=True, slots=True)
class CniConfig:
    """Paths of the host, but for `program`, which is ours to copy."""

    program: Path = DEFAULT_CNI_PROGRAM
    conf_dir: Path | None = None  # None: found
    bin_dir: Path | None = None
    host_prefix: Path = Path("/")
    state_dir: Path = DEFAULT_STATE_DIR
    exempt: tuple[str, ...] = tuple(DEFAULT_EXEMPT.split(","))


@dataclass(frozen=True, slots=True)
class AgentConfig:
    node: str
    control: str  # HOST:PORT
    control_root: Path
    control_name: str
    token: Path | None
    zds: Path
    cgroup_root: Path
    replicas: str = ""  # HOST:PORT of all replicas of the control plane; empty: there is one
    run_dir: Path = DEFAULT_RUN_DIR
    bpffs: Path = DEFAULT_BPFFS
    cache: Path = DEFAULT_CACHE
    metrics: str = "127.0.0.1:15025"
    drain_s: float = DEFAULT_DRAIN_S
    linger_s: float = DEFAULT_LINGER_S
    direct: bool = True
    shortcut: bool = True
    kubernetes: bool = False  # find running pods through the container runtime
    cri_socket: Path | None = None  # None: one of the usual ones
    kubelet_port: int = DEFAULT_KUBELET_PORT  # 0: no kubelet is recognised
    cni: CniConfig | None = None  # None: no plugin of ours

    @property
    def direct_socket(self) -> Path:
        return self.folder / "direct.sock"

    @property
    def folder(self) -> Path:
        return node_folder(self.run_dir, self.node)

    @property
    def pin_root(self) -> Path:
        return pin_root(self.bpffs, self.node)


def node_folder(run_dir: Path, node: str) -> Path:
    return run_dir / node


def pin_root(bpffs: Path, node: str) -> Path:
    """bpffs refuses names with dots, which nodes of a cloud have (ip-10-0-1-2.ec2.internal)."""
    return bpffs / "tulle" / node.replace(".", "=2e")


def node_of_pins(root: Path) -> str:
    """The name of the node whose pins these are."""
    return root.name.replace("=2e", ".")


def host_of(address: str, flag: str = "--control") -> str:
    """The HOST of HOST:PORT, the default name in its certificate; ConfigError otherwise."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not host:
        raise ConfigError(f"{flag} must be HOST:PORT, not {address!r}")
    return host.strip("[]")
