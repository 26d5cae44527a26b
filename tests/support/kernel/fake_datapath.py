"""The kernel half and the direct path in memory, as the enroller uses them; calls are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import zds
from agent.datapath.audit import Difference
from agent.datapath.errors import DatapathError
from agent.datapath.lookup import Prepared
from agent.datapath.pods import CapturedPod, PodCapture
from agent.datapath.refused import Slots
from control.model.address import Address


class FakeAudit:
    """Differences that a test prepares; those of the node are told once, as they are mended."""

    def __init__(self) -> None:
        self.of_node: list[Difference] = []
        self.of_pods: dict[str, list[Difference]] = {}
        self.refuses = False

    def node(self) -> list[Difference]:
        if self.refuses:
            raise DatapathError("no")
        found, self.of_node = self.of_node, []
        return found

    def pod(self, uid: str) -> list[Difference]:
        return self.of_pods.get(uid, [])


class FakeDatapath:
    def __init__(self, *pods: CapturedPod) -> None:
        self.audit = FakeAudit()
        self.shortcuts = None
        self.forgotten: list[int] = []
        self.prepared: list[tuple[Any, ...]] = []
        self.pods = {pod.uid: pod for pod in pods}
        self.exempted: set[Path] = set()
        self.probes: dict[str, frozenset[int]] = {}
        self.handed_over: list[str] = []
        self.remembered_s = 0.0
        self.refuses = False

    def _call(self) -> None:
        if self.refuses:
            raise DatapathError("no")

    def prepare(self, netns_fd: int, cookie: int, addresses: tuple[Address, ...]) -> Prepared:
        """Nothing can be made without a kernel; who asked for what, in which thread, is kept."""
        self.prepared.append((netns_fd, cookie, addresses, threading.current_thread()))
        raise DatapathError("no kernel")

    def capture(
        self, pod: PodCapture, *, shortcut_later: bool = False, prepared: Prepared | None = None
    ) -> CapturedPod:
        self._call()
        made = CapturedPod(pod.uid, 1, pod.addresses, 1, pod.direct)
        self.pods[pod.uid] = made
        return made

    def hand_over(self, pod: PodCapture) -> CapturedPod:
        self._call()
        self.handed_over.append(pod.uid)
        return self.pods[pod.uid]

    def set_direct(self, uid: str, direct: bool) -> CapturedPod:
        self._call()
        self.pods[uid] = replace(self.pods[uid], direct=direct)
        return self.pods[uid]

    def set_probes(self, uid: str, ports: frozenset[int]) -> None:
        self._call()
        self.probes[uid] = ports

    def refused(self, uid: str) -> Slots:
        self._call()
        return {}

    def release(self, uid: str) -> bool:
        self._call()
        return self.pods.pop(uid, None) is not None

    def captured(self) -> list[CapturedPod]:
        return list(self.pods.values())

    def exempt(self, cgroup: Path) -> None:
        self.exempted.add(cgroup)

    def is_exempt(self, cgroup: Path) -> bool:
        return cgroup in self.exempted

    def remembers_s(self) -> float:
        return self.remembered_s

    def forget(self, uid: str) -> None:
        assert uid not in self.pods
        self.probes.pop(uid, None)

    def forget_entry(self, cookie: int) -> None:
        self.forgotten.append(cookie)

    def unexempt(self, cgroup: Path) -> None:
        self._call()
        self.exempted.discard(cgroup)


class FakeKubeletHook:
    """The program for probes; `refuses`: the kernel says no."""

    def __init__(self) -> None:
        self.cgroup: Path | None = None
        self.attached: list[Path] = []
        self.refuses = False

    def attach(self, cgroup: Path, netns_cookie: int) -> None:
        assert netns_cookie
        if self.refuses:
            raise DatapathError("no")
        self.cgroup = cgroup
        self.attached.append(cgroup)

    def detach(self) -> None:
        self.cgroup = None

    def target(self) -> int:
        return 0 if self.cgroup is None else self.cgroup.stat().st_ino


class FakeDirect:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def newest(self, pid: int | None) -> None:
        self.calls.append(("newest", pid))

    def captured(self, uid: str, workload: int, addresses: tuple[Address, ...]) -> None:
        self.calls.append(("captured", uid, workload, addresses))

    def released(self, uid: str, workload: int = 0) -> None:
        self.calls.append(("released", uid, workload))

    def forgotten(self, uid: str) -> None:
        self.calls.append(("forgotten", uid))


class FakeAsked:
    """A request that is answered when the test says so, or at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self._answered = asyncio.Event()
        if at_once:
            self._answered.set()
        self.error: Exception | None = None
        self.descriptors: list[int] = []

    def finish(self) -> None:
        self._answered.set()

    async def answer(self) -> zds.Descriptors:
        await self._answered.wait()
        if self.error is not None:
            raise self.error
        return zds.Descriptors(self.descriptors)


class FakeZtunnel:
    """A connected ztunnel with prepared answers; `asked` keeps the requests."""

    def __init__(self, number: int, pid: int = 1) -> None:
        self.number = number
        self.pid = pid
        self.is_ours = True
        self.is_side_by_side = True
        self.is_leaving = False
        self.asked: list[str] = []
        self.answer: Callable[[str], None] = lambda request: None
        self.adds: dict[str, FakeAsked] = {}

    def _ask(self, request: str) -> None:
        self.asked.append(request)
        self.answer(request)

    def add(self, pod: Any, netns_fd: int) -> FakeAsked:
        self._ask(f"add {pod.uid}")
        request = self.adds[pod.uid] = FakeAsked()
        return request

    async def added(self, request: FakeAsked) -> zds.Descriptors:
        return await request.answer()

    def delete(self, uid: str) -> FakeAsked:
        request = FakeAsked(at_once=True)
        self.asked.append(f"delete {uid}")
        try:
            self.answer(f"delete {uid}")
        except zds.ZtunnelRefused as exc:
            request.error = exc
        return request

    async def keep(self, uid: str) -> None:
        self._ask(f"keep {uid}")

    async def snapshot_sent(self) -> None:
        self._ask("snapshot")
