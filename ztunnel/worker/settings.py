"""The supervisor's CONFIG frame as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ztunnel.connections.engine import EngineConfig


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    engine: EngineConfig
    cluster_id: str
    log_level: str
    log_format: str  # "text" or "json"
    drain_s: float  # the deadline of a drain that names none
    access_log: bool
    spin_us: int  # polling before a sleep; 0 never polls
    fixed_ports: bool  # packet filter rules redirect here, instead of our kernel half
    direct: bool  # the kernel may carry connections itself

    @classmethod
    def parse(cls, value: dict[str, Any]) -> WorkerSettings:
        """Keys that are missing have defaults; TypeError or ValueError for a wrong value."""
        engine = EngineConfig(
            trust_domain=str(value.get("trust_domain", "cluster.local")),
            worker=int(value.get("worker", 0)),
            node=str(value.get("node", "")),
        )
        return cls(
            engine,
            cluster_id=str(value.get("cluster_id", "")),
            log_level=str(value.get("log_level", "info")),
            log_format=str(value.get("log_format", "text")),
            drain_s=float(value.get("drain_s", 5.0)),
            access_log=bool(value.get("access_log", True)),
            spin_us=int(value.get("spin_us", 0)),
            fixed_ports=bool(value.get("fixed_ports")),
            direct=bool(value.get("direct")),
        )
