"""Settings of a waypoint's process, read once and frozen; only `main.py` fills them in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from control.kit.errors import ConfigError
from control.model.identity import SpiffeId, parse_spiffe_id
from control.model.route import WaypointKey
from ztunnel.config import SYSTEM_ROOTS, LiteralToken

CONCURRENCY_MAX = 64  # Envoy's workers; each has its own pools of connections


@dataclass(frozen=True, slots=True)
class WaypointConfig:
    gateway: WaypointKey
    control: str  # host:port, for certificates and resources
    envoy: Path
    identity: SpiffeId
    control_root: str = SYSTEM_ROOTS  # file, PEM text, or SYSTEM
    control_name: str = ""  # verify this name instead of the host in the address
    token: Path | LiteralToken | None = None  # a file is read again at each use
    pod_name: str = ""
    cluster_id: str = "Kubernetes"
    concurrency: int = 1
    secret_ttl_s: float = 86400.0
    drain_s: float = 5.0
    run_dir: Path = Path("/run/tulle")
    metrics: str = "0.0.0.0:15020"
    readiness: str = "0.0.0.0:15021"
    log_level: str = "info"
    log_format: str = "text"

    # As the client of the certificate service asks for them.

    @property
    def ca(self) -> str:
        return self.control

    @property
    def ca_root(self) -> str:
        return self.control_root

    @property
    def ca_name(self) -> str:
        return self.control_name

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / "waypoints" / f"{self.gateway.namespace}.{self.pod_name}.sock"

    @property
    def node_id(self) -> str:
        """Envoy's id. It says who we are to people; the control plane believes the token alone."""
        return f"waypoint~{self.gateway.namespace}~{self.gateway.name}~{self.pod_name}"

    def as_json(self) -> dict[str, object]:
        """Settings for the admin page: they hold paths to secrets, but no secret."""
        shown: dict[str, object] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            is_plain = isinstance(value, str | int | float | None)
            shown[each.name] = value if is_plain else str(value)
        return shown


def gateway_of(text: str) -> WaypointKey:
    """`namespace/name` of a Gateway; ConfigError for anything else."""
    namespace, slash, name = text.partition("/")
    if not slash or "/" in name:
        raise ConfigError(f"not namespace/name: {text!r}")
    identity_of(WaypointKey(namespace, name), "cluster.local")  # both have to be names
    return WaypointKey(namespace, name)


def identity_of(gateway: WaypointKey, trust_domain: str) -> SpiffeId:
    """The identity of its processes: the account has the Gateway's name, as in Istio."""
    try:
        return parse_spiffe_id(f"spiffe://{trust_domain}/ns/{gateway.namespace}/sa/{gateway.name}")
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
