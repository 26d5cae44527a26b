"""kubectl as a function: every call has a deadline, every failure its own words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CALL_S = 60.0
_LINES_MAX = 4  # the end of what a command said before it failed


class CommandFailed(Exception):
    """A command that ended badly, or not in time; the message is the end of what it said."""


def ran(command: Sequence[str], text: str = "", timeout_s: float = CALL_S) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CommandFailed(f"{command[0]}: {exc}") from exc
    if done.returncode != 0:
        said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        raise CommandFailed(f"exit {done.returncode}: {' | '.join(said[-_LINES_MAX:])}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Kubectl:
    kubeconfig: str
    context: str = ""
    program: str = "kubectl"
    more: tuple[str, ...] = field(default=())

    def command(self, *arguments: str) -> list[str]:
        chosen = ["--context", self.context] if self.context else []
        return [self.program, "--kubeconfig", self.kubeconfig, *chosen, *self.more, *arguments]

    def __call__(self, *arguments: str, text: str = "", timeout_s: float = CALL_S) -> str:
        return ran(self.command(*arguments), text, timeout_s)

    def apply(self, text: str) -> None:
        self("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)

    def items(self, kind: str, namespace: str = "", selector: str = "") -> list[dict[str, Any]]:
        where = ["-n", namespace] if namespace else ["-A"]
        which = ["-l", selector] if selector else []
        found = json.loads(self("get", kind, *where, *which, "-o", "json"))
        return list(found["items"])

    def exec(self, namespace: str, pod: str, *command: str, timeout_s: float = CALL_S) -> str:
        return self("exec", "-n", namespace, pod, "--", *command, timeout_s=timeout_s)

    def rolled_out(self, namespace: str, workload: str, timeout_s: float) -> None:
        wait = f"--timeout={timeout_s:.0f}s"
        self("rollout", "status", "-n", namespace, workload, wait, timeout_s=timeout_s + 10)
