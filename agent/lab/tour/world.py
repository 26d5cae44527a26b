"""The running lab as the tour uses it: commands in pods, the CLI, captures, waits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.fetch import FetchError, get_json
from agent.lab import plan
from agent.lab.daemons import environment, program
from agent.lab.lab import Lab
from agent.lab.netns import NETNS_FOLDER
from agent.lab.tour.report import ClaimFailed, Report
from control.kit.errors import MeshError

MARKER = "tulle-marker-7f3a9c"
TULLE_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 15.0  # for steps that take well under a second
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Exit code and output of a command in a pod."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out.strip() or self.err.strip() or f"exit code {self.code}"


@dataclass(slots=True)
class Crossing:
    """Counts of a capture; filled when its context ends."""

    counts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.counts[name]


class World:
    def __init__(self, lab: Lab, report: Report) -> None:
        self.lab = lab
        self.report = report
        self.direct_us = 0.0  # time of a fresh connection before enrolment, to compare with

    # Commands

    def ask(self, pod: str, *command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> CommandResult:
        """Run a command in a pod (`namespace/name`)."""
        namespace, name = pod.split("/")
        try:
            done = self.lab.run(namespace, name, command, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            return CommandResult(124, "", f"no answer in {timeout_s:.0f} s")
        return CommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ask_all(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> list[CommandResult]:
        """Run several commands at once; results in order."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda each: self.ask(each[0], *each[1]), questions))

    def tulle(self, *arguments: str, data: str = "", quiet: bool = False) -> str:
        """Call the CLI as a user would; its standard output. A failure ends the tour."""
        if not quiet:
            self.report.run("tulle " + " ".join(arguments))
        try:
            done = subprocess.run(
                [*program("tulle"), *arguments],
                input=data,
                env=environment() | {"TULLE_RUN_DIR": str(self.lab.run_dir)},
                capture_output=True,
                text=True,
                timeout=TULLE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClaimFailed(f"tulle {arguments[0]}: nothing in {TULLE_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            raise ClaimFailed(f"tulle {arguments[0]}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def apply(self, manifest: str) -> None:
        self.report.show(manifest)
        self.tulle("lab", "apply", "-f", "-", data=manifest)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.tulle("lab", "delete", kind, name, "-n", namespace)

    # State of the lab

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.lab.store.load().nodes]

    def agent(self, node: str) -> Any:
        return get_json(self.lab.run_dir / node / "agent.sock", "/status")

    def ztunnel(self, node: str) -> Any:
        return get_json(self.lab.run_dir / node / "ztunnel.sock", "/config_dump")

    def log(self, name: str) -> str:
        return (self.lab.run_dir / "logs" / f"{name}.log").read_text(errors="replace")

    def address(self, pod: str, family: int = 4) -> str:
        pair = self.lab.store.load().pods[pod].address
        return pair.v4 if family == 4 else pair.v6

    @contextmanager
    def capture(self) -> Iterator[Crossing]:
        """Watch the link between the nodes (the router's end of node n1's)."""
        state = self.lab.store.load()
        netns = plan.router_netns(state.lab)
        command = [
            sys.executable,
            "-m",
            "agent.lab.tour.capture",
            f"to-{state.nodes[0].name}",
            MARKER,
        ]
        process = subprocess.Popen(
            ["nsenter", f"--net={NETNS_FOLDER / netns}", "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        crossing = Crossing()
        try:
            if process.stdout.readline().strip() != "ready":
                raise MeshError("the packet capture did not start")
            yield crossing
        finally:
            process.stdin.close()
            text = process.stdout.read()
            process.wait(10)
        crossing.counts.update(json.loads(text))
        if crossing["lost"]:
            raise MeshError(f"the capture lost {crossing['lost']} packets: it proves nothing")

    def until(
        self, holds: Callable[[], bool], what: str, timeout_s: float = SETTLE_TIMEOUT_S
    ) -> float:
        """Wait for a condition; the seconds it took. A missed deadline ends the tour."""
        started = time.monotonic()
        while True:
            try:
                if holds():
                    return time.monotonic() - started
            except FetchError:
                pass  # a process that is starting has no socket yet
            if time.monotonic() - started > timeout_s:
                raise ClaimFailed(f"not within {timeout_s:.0f} s: {what}")
            time.sleep(POLL_S)


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
