"""Waypoints in a lab: pods whose one process is ours, with Envoy beside it."""

from __future__ import annotations

from pathlib import Path

from agent.fetch import FetchError, get_json
from agent.lab import plan
from agent.lab.daemons import CONTROL_NAME, CONTROL_PORT, environment, program, token_of
from agent.lab.state import PodRecord
from control.kit.files import write_atomic

FOLDER = "waypoints"  # in the run folder: admin sockets and tokens
DRAIN_S = 5.0
STOP_GRACE_S = DRAIN_S + 5.0  # to drain, and to end Envoy


def command(run_dir: Path, pod: PodRecord) -> tuple[str, ...]:
    """Command of a waypoint's process; it reaches the control plane from its pod's own network."""
    spec = pod.spec
    return (
        *program("tulle-waypoint"),
        *("--gateway", f"{spec.namespace}/{spec.waypoint}", "--pod-name", spec.name),
        *("--control", f"{plan.uplink(0).v4}:{CONTROL_PORT}", "--control-name", CONTROL_NAME),
        *("--control-root", str(_control_state(run_dir) / "ca" / "root-cert.pem")),
        *("--token", str(_token(run_dir, pod)), "--run-dir", str(run_dir)),
        *("--drain", f"{DRAIN_S:.0f}s"),
    )


def make_token(run_dir: Path, pod: PodRecord) -> None:
    """Make a token for this pod's account on its node; ControlError: there is none."""
    spec = pod.spec
    account = f"{spec.namespace}/{spec.waypoint}"
    flags = ("--node", spec.node, "--service-account", account)
    made = token_of(_control_state(run_dir), f"waypoint {spec.key}", *flags)
    path = _token(run_dir, pod)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomic(path, made, 0o600)


def is_ready(run_dir: Path, pod: PodRecord) -> bool:
    """True once Envoy serves, by the process's own word."""
    socket = run_dir / FOLDER / f"{pod.spec.namespace}.{pod.spec.name}.sock"
    try:
        return not get_json(socket, "/status", timeout_s=5.0)["pending"]
    except FetchError:
        return False


def forget(run_dir: Path, pod: PodRecord) -> None:
    """Remove the files of one that has been stopped."""
    _token(run_dir, pod).unlink(missing_ok=True)


def settings(pod_environment: dict[str, str]) -> dict[str, str]:
    """Environment of the process: the pod's, and what our programs need."""
    return {**pod_environment, **environment()}


def _token(run_dir: Path, pod: PodRecord) -> Path:
    return run_dir / FOLDER / f"{pod.spec.namespace}.{pod.spec.name}.token"


def _control_state(run_dir: Path) -> Path:
    return run_dir / "control" / "state"
