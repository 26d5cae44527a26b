"""The process on its host, before anything is started: its cgroup."""

from __future__ import annotations

import os
from pathlib import Path

from control.kit.errors import ConfigError


def join_cgroup(path: Path) -> None:
    """Move this process, and with it every worker, into a cgroup that the agent exempts."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    except OSError as exc:
        raise ConfigError(f"cannot join the cgroup {path}: {exc}") from exc
