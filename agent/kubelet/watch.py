"""Keeps the program for probes on the kubelet's cgroup, through restarts of the kubelet.

A search reads /proc for some 40 ms, in a thread, and only when somebody listens on the port. While
a kubelet runs nobody polls: its pidfd tells of its end. Without one its program stays a while where
it was, on a cgroup that may be gone: a kubelet that comes back there has lost no probe.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from agent.datapath import cgroups, netns
from agent.kubelet.finder import Kubelet, find
from agent.kubelet.reasons import Unrecognised
from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import KernelError
from control.kit.log import event

log = logging.getLogger("kubelet")

SEARCH_FIRST_S, SEARCH_MAX_S = 0.2, 2.0
# A process can be moved into another cgroup, and its neighbours in there change.
LOOK_AGAIN_S = 60.0
# A restart takes seconds; after that time nobody is vouched for until a kubelet is found.
KEPT_S = 60.0

Find = Callable[[int, Path], Kubelet | Unrecognised]


class ProbeProgram(Protocol):
    """The program for probes, in the kernel."""

    def attach(self, cgroup: Path, netns_cookie: int) -> None: ...
    def detach(self) -> None: ...
    def target(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Sight:
    """The kubelet as it was seen last, or the reason why there is none."""

    kubelet: Kubelet | None
    reason: Unrecognised | None
    since: datetime
    error: str = ""

    def said(self) -> dict[str, str]:
        return {"reason": "" if self.reason is None else self.reason.word, "error": self.error}

    def as_json(self, port: int) -> dict[str, Any]:
        kubelet = self.kubelet
        return {
            "port": port,
            "recognised": kubelet is not None,
            **self.said(),
            "pid": None if kubelet is None else kubelet.pid,
            "cgroup": "" if kubelet is None else str(kubelet.cgroup),
            "shared_with": [] if kubelet is None else list(kubelet.shared_with),
            "since": self.since.isoformat(),
        }


class KubeletWatch:
    def __init__(
        self, hook: ProbeProgram, root: Path, port: int, clock: Clock, find: Find = find
    ) -> None:
        """Port 0: no kubelet is recognised."""
        self._hook = hook
        self._root = root
        self._find = find
        self._clock = clock
        self._lost_s: float | None = None  # since when there has been none
        self.port = port
        first = Unrecognised.SEARCHING if port else Unrecognised.OFF
        self.sight = Sight(None, first, clock.now())
        self.attachments = 0

    def status(self) -> dict[str, Any]:
        return self.sight.as_json(self.port)

    async def run(self) -> None:
        """Watch for ever; the program stays in force afterwards."""
        if not self.port:
            self._hook.detach()
            return
        backoff = Backoff(SEARCH_FIRST_S, SEARCH_MAX_S)
        while True:
            found = await asyncio.to_thread(self._looked)
            if isinstance(found, Sight):
                self._saw(found)
                await asyncio.sleep(backoff.next_s())
                continue
            kubelet, pidfd = found
            try:
                if self._attached(kubelet):
                    backoff.reset()
                    await _ended(pidfd)
                else:
                    await asyncio.sleep(backoff.next_s())
            finally:
                os.close(pidfd)

    def _looked(self) -> Sight | tuple[Kubelet, int]:
        """The kubelet and its pidfd, which the caller closes. Runs in a thread."""
        now = self._clock.now()
        pidfd = -1
        try:
            found = self._find(self.port, self._root)
            if isinstance(found, Unrecognised):
                return Sight(None, found, now)
            pidfd = os.pidfd_open(found.pid)
            # Its number may have been another process's before we held it.
            again = self._find(self.port, self._root)
            if isinstance(again, Kubelet) and (again.pid, again.cgroup) == (
                found.pid,
                found.cgroup,
            ):
                held, pidfd = pidfd, -1
                return again, held
            return Sight(None, Unrecognised.SEARCHING, now)
        except ProcessLookupError:
            return Sight(None, Unrecognised.SEARCHING, now)
        except (KernelError, OSError) as exc:
            return Sight(None, Unrecognised.KERNEL, now, str(exc))
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _attached(self, kubelet: Kubelet) -> bool:
        now = self._clock.now()
        try:
            if self._hook.target() != cgroups.cgroup_id(kubelet.cgroup):
                self._hook.attach(kubelet.cgroup, netns.own_cookie())
        except (KernelError, OSError) as exc:
            self._saw(Sight(None, Unrecognised.KERNEL, now, str(exc)))
            return False
        self._lost_s = None
        before = self.sight.kubelet
        same = before is not None and (before.pid, before.cgroup) == (kubelet.pid, kubelet.cgroup)
        self.sight = Sight(kubelet, None, self.sight.since if same else now)
        if not same:
            self.attachments += 1
            event(log, logging.INFO, "kubelet.found", pid=kubelet.pid, cgroup=kubelet.cgroup)
        return True

    def _saw(self, sight: Sight) -> None:
        """Note that there is none; its program goes at once if it would vouch for others."""
        now_s = self._clock.monotonic_s()
        if self._lost_s is None:
            self._lost_s = now_s
        if sight.reason is not self.sight.reason or sight.error != self.sight.error:
            name = "kubelet.failed" if sight.reason is Unrecognised.KERNEL else "kubelet.none"
            level = logging.INFO if sight.reason in _MAY_COME_BACK else logging.WARNING
            event(log, level, name, port=self.port, **sight.said())
            self.sight = sight
        is_over = now_s - self._lost_s > KEPT_S
        if (is_over or sight.reason not in _MAY_COME_BACK) and self._hook.target():
            self._hook.detach()
            event(log, logging.INFO, "kubelet.detached", port=self.port)


_MAY_COME_BACK = frozenset(
    {Unrecognised.SEARCHING, Unrecognised.NOT_LISTENING, Unrecognised.KERNEL}
)


async def _ended(pidfd: int) -> None:
    """Wait for the end of the process, or a while."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(LOOK_AGAIN_S):
            await ended.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(pidfd)
