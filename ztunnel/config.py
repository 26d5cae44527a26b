"""Settings of the ztunnel, read once and frozen; only `main.py` fills them in."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from control.kit.errors import ConfigError

SYSTEM_ROOTS = "SYSTEM"
OFF = frozenset({"", "off"})  # instead of an address: no such page
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)  # `{"` in base64 begins like that
_PEM_HEAD = "-----BEGIN "
ZDS_NAME = "zds.sock"
DIRECT_NAME = "direct.sock"
# Each has its own listeners in every pod; the kernel half has as many places for each role.
WORKERS_MAX = 32


class Addresses(Enum):
    """Addresses of the mesh that this node is told of: all of them, or those that it asks for."""

    ALL = "all"
    ON_DEMAND = "on-demand"
    AUTO = "auto"  # by the size of the mesh, where the control plane says it


@dataclass(frozen=True, slots=True)
class LiteralToken:
    """A token given as text instead of a file; it shows nowhere."""

    secret: str = field(repr=False)

    def __str__(self) -> str:
        return "(given as text)"


@dataclass(frozen=True, slots=True)
class ZtunnelConfig:
    control: str  # host:port of the delta xDS service
    ca: str  # host:port of the certificate service
    zds: Path  # where the node agent listens
    run_dir: Path
    control_root: str = SYSTEM_ROOTS  # file, PEM text, or SYSTEM
    ca_root: str = SYSTEM_ROOTS
    control_name: str = ""  # verify this name instead of the host in the address
    ca_name: str = ""
    # A file is read again for every connection: tokens rotate.
    token: Path | LiteralToken | None = None
    node: str = ""
    cluster_id: str = "Kubernetes"
    network: str = ""
    trust_domain: str = "cluster.local"
    pod_name: str = "ztunnel"
    pod_namespace: str = "istio-system"
    service_account: str = "ztunnel"
    instance_ip: str = "127.0.0.1"
    workers: int = 1
    # For open connections to end after SIGTERM: while a newer ztunnel serves this node, and without
    # one, when the next one starts only after us.
    drain_s: float = 300.0
    drain_alone_s: float = 5.0
    spin_us: int = 50
    secret_ttl_s: float = 86400.0
    fixed_ports: bool = False
    addresses: Addresses = Addresses.ALL
    dns_capture: bool = False  # the agent redirects pods' DNS, which nobody serves here
    admin: str = "127.0.0.1:15000"
    admin_on_tcp: bool = False
    metrics: str = "0.0.0.0:15020"
    readiness: str = "0.0.0.0:15021"
    log_level: str = "info"
    log_format: str = "text"
    access_log: bool = True
    cgroup: Path | None = None
    direct: Path | None = None  # the agent's socket for the direct path; None: off

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / self.node / "ztunnel.sock"

    def as_json(self) -> dict[str, object]:
        """Settings for the admin page: they hold paths to secrets, but no secret."""
        shown: dict[str, object] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Enum):
                value = value.value
            shown[each.name] = str(value) if isinstance(value, Path | LiteralToken) else value
        return shown

    def for_workers(self) -> dict[str, object]:
        """The `CONFIG` frame."""
        names = (
            "trust_domain",
            "cluster_id",
            "network",
            "node",
            "drain_s",
            "spin_us",
            "log_level",
            "log_format",
            "access_log",
            "fixed_ports",
        )
        settings: dict[str, object] = {name: getattr(self, name) for name in names}
        return {**settings, "direct": self.direct is not None}


def direct_socket(zds: Path, *, fixed_ports: bool) -> Path | None:
    """direct.sock beside the ZDS socket of our own agent; no other agent has one."""
    if fixed_ports or zds.name != ZDS_NAME:
        return None
    return zds.with_name(DIRECT_NAME)


def host_port(text: str) -> str:
    """`https://host:15012` and `host:15012` → `host:15012`; ConfigError for anything else."""
    bare = text.removeprefix("https://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or not host or "/" in bare or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"not host:port: {text!r}")
    return bare


def workers_of(text: str, cpus: int) -> int:
    """Number of workers: as given, `0` for one per CPU, `25%` for a share of them: one or more,
    WORKERS_MAX at most."""
    number = text.removesuffix("%")
    is_share = number != text
    number_max = 100 if is_share else WORKERS_MAX
    if not (number.isascii() and number.isdigit() and int(number) <= number_max):
        raise ConfigError(f"not a number of workers: {text!r}")
    if is_share:
        return min(max(1, cpus * int(number) // 100), WORKERS_MAX)
    return int(number) or min(cpus, WORKERS_MAX)


def token_source(text: str) -> Path | LiteralToken:
    """Parse a token: a file, which need not exist yet, or the token itself, which looks like no
    path."""
    return LiteralToken(text) if _JWT.fullmatch(text) else Path(text)


def read_roots(value: str) -> bytes | None:
    """PEM of a `*_root` setting; None: the system's own. ConfigError: it cannot be read."""
    if value == SYSTEM_ROOTS:
        return None
    if value.startswith(_PEM_HEAD):
        return value.encode()
    try:
        return Path(value).read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read the root certificate {value}: {exc.strerror}") from exc
