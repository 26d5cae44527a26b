"""The measurements, each of a control plane of its own."""

from __future__ import annotations

import asyncio
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from control.kit.memory import SETTLE_AT_S
from tests.bench.scale.light import LightNodes
from tests.bench.scale.mesh import ENROLLED_AT_ONCE, LargeMesh, policy, text
from tests.bench.scale.outcome import ScaleFigure
from tests.bench.scale.subject import Subject, running

CHANGES = 7
QUIET_S = 1.5  # between changes
SETTLED_S = SETTLE_AT_S[0] + 1.5  # what only the start needed was handed back
KUBE_NODES, KUBE_CHANGES = 10, 10
_KUBE_READY = re.compile(r"ready in ([\d.]+) s \(CPU [\d.]+ s\), (\d+) MiB")
_KUBE_MEDIAN = re.compile(r"median (\d+) ms")
Figures = AsyncIterator[ScaleFigure]


class Unmeasured(Exception):
    """A part that ended without its figures: the others are measured all the same."""


async def alone(pods: int) -> Figures:
    """Starts, and changes with one node to hear of them."""
    mesh = LargeMesh(pods, 100)

    def figure(name: str, value: float) -> ScaleFigure:
        return ScaleFigure(name, pods, 0, value)

    with _folder(mesh) as folder:
        async with running(folder, _free_port()) as subject:
            yield figure("ready_s", subject.ready_s)
            yield figure("ready_cpu_s", subject.ready_cpu_s)
            await asyncio.sleep(SETTLED_S)
            yield figure("rss_mib", subject.memory_mib()[0])
        async with running(folder, _free_port()) as subject:
            yield figure("again_s", subject.ready_s)
            async with _nodes(subject, 1) as nodes:
                took, cpu_s = await _changes(folder, mesh, subject, nodes, 1)
                yield figure("change_ms", statistics.median(took))
                yield figure("change_cpu_ms", cpu_s * 1000)
                async with subject.probed() as answers:
                    yield figure("policy_ms", await _policy(folder, nodes, "p-first"))
                    crowd = folder / "manifests" / "pods-000.yaml"
                    text_of_it = crowd.read_text()
                    crowd.write_text(text_of_it.replace('"version": "v1"', '"version": "v2"'))
                    yield figure("policy_after_ms", await _policy(folder, nodes, "p-second"))
                    await asyncio.sleep(2 * QUIET_S)
            yield figure("probe_ms", answers[-1])
            yield figure("probe_p99_ms", answers[int(len(answers) * 0.99)])


async def fan(pods: int, count: int, *, sums: bool = True) -> Figures:
    """Many nodes: they connect at once, hear of changes, and come back after a restart."""
    mesh = LargeMesh(pods, count)

    def figure(name: str, value: float) -> ScaleFigure:
        return ScaleFigure(name, pods, count, value)

    with _folder(mesh) as folder:
        async with running(folder, _free_port()) as subject:
            async with _nodes(subject, 1, parses=True) as first:
                whole = first.bytes["node-0"]
                versions = first.versions
            subject.memory_mib()
            started_s = time.monotonic()
            async with _nodes(subject, count, whole) as nodes:
                yield figure("fresh_s", time.monotonic() - started_s)
                yield figure("sync_mb", whole / 1e6)
                now, most = subject.memory_mib()
                yield figure("fan_rss_mib", now)
                yield figure("fan_peak_mib", most)
                took, cpu_s = await _changes(folder, mesh, subject, nodes, count)
                yield figure("last_ms", statistics.median(took))
                yield figure("fan_cpu_ms", cpu_s * 1000)
                if pods >= ENROLLED_AT_ONCE:
                    yield figure("enrol_ms", await _enrol(mesh, nodes, count))
                yield figure("broken", nodes.broken)
        async with running(folder, _free_port()) as subject:
            subject.memory_mib()
            started_s = time.monotonic()
            back = LightNodes(subject.control, versions, sums=sums)
            async with _nodes(subject, count, 1, nodes=back) as nodes:
                await _change(folder, mesh, nodes, count, "back")
                yield figure("return_s", time.monotonic() - started_s)
                yield figure("return_mb", statistics.median(nodes.bytes.values()) / 1e6)
                yield figure("return_peak_mib", subject.memory_mib()[1])


async def kube(pods: int) -> Figures:
    """The same objects from an API server of pods as real ones are."""
    script = Path(__file__).parents[1] / "kubernetes_source.py"
    words = f"--pods {pods} --services {pods // 10} --nodes {KUBE_NODES} --changes {KUBE_CHANGES}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *words.split(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    found, median = _KUBE_READY.search(out.decode()), _KUBE_MEDIAN.search(out.decode())
    if found is None or median is None:
        raise Unmeasured(f"{script.name} did not say how long it took")
    yield ScaleFigure("kube_ready_s", pods, 0, float(found[1]))
    yield ScaleFigure("kube_rss_mib", pods, 0, float(found[2]))
    yield ScaleFigure("kube_change_ms", pods, 0, float(median[1]))


@contextmanager
def _folder(mesh: LargeMesh) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        mesh.write(Path(name) / "manifests")
        yield Path(name)


@asynccontextmanager
async def _nodes(
    subject: Subject,
    count: int,
    fresh_bytes: int = 0,
    *,
    parses: bool = False,
    nodes: LightNodes | None = None,
) -> AsyncIterator[LightNodes]:
    """Nodes with their agents, once each has so many bytes; of the first alone it is not known how
    many that are, so it is waited until nothing comes any more."""
    nodes = nodes or LightNodes(subject.control)
    async with asyncio.TaskGroup() as tasks:
        running = []
        for number in range(count):
            name = f"node-{number}"
            running.append(tasks.create_task(nodes.ztunnel(name, parses=parses), name=name))
            if not parses:
                running.append(tasks.create_task(nodes.agent(f"{name}"), name=f"{name}.agent"))
        if fresh_bytes:
            await nodes.until(lambda: _fresh(nodes, fresh_bytes) + nodes.broken >= count)
        else:
            await _quiet(nodes)
        yield nodes
        for each in running:
            each.cancel()


def _fresh(nodes: LightNodes, fresh_bytes: int) -> int:
    return sum(each >= fresh_bytes for each in nodes.bytes.values())


async def _quiet(nodes: LightNodes) -> None:
    before = -1
    while sum(nodes.bytes.values()) != before or not nodes.bytes:
        before = sum(nodes.bytes.values())
        await asyncio.sleep(QUIET_S)


async def _changes(
    folder: Path, mesh: LargeMesh, subject: Subject, nodes: LightNodes, count: int
) -> tuple[list[float], float]:
    """Times until the last node has a change, in ms; CPU of one in s, without idling."""
    await asyncio.sleep(SETTLED_S)
    started_s, idle_s = time.monotonic(), subject.cpu_s()
    await asyncio.sleep(2 * QUIET_S)
    idle_s = (subject.cpu_s() - idle_s) / (time.monotonic() - started_s)
    started_s, used_s = time.monotonic(), subject.cpu_s()
    took = [
        await _change(folder, mesh, nodes, count, f"change-{number}") for number in range(CHANGES)
    ]
    passed_s = time.monotonic() - started_s
    return took, max(0.0, subject.cpu_s() - used_s - idle_s * passed_s) / CHANGES


async def _change(
    folder: Path, mesh: LargeMesh, nodes: LightNodes, count: int, version: str
) -> float:
    """The first pod has another label: its canonical revision, which every node is told."""
    await asyncio.sleep(QUIET_S)
    nodes.forget()
    scratch = folder / "manifests" / ".hot"
    scratch.write_text(text([mesh.pod(0, version)]))
    started_s = time.monotonic()
    scratch.rename(folder / "manifests" / "hot.yaml")
    return await _heard(nodes, count, started_s)


async def _heard(nodes: LightNodes, count: int, started_s: float) -> float:
    def last() -> list[float]:
        return max(nodes.heard.values(), key=len, default=[])

    await nodes.until(lambda: len(last()) >= count - nodes.broken)
    return (max(last()) - started_s) * 1000


async def _policy(folder: Path, nodes: LightNodes, name: str) -> float:
    wanted = f"ns-0/{name}"
    scratch = folder / "manifests" / ".policy"
    principal = "cluster.local/ns/ns-0/sa/nobody"
    scratch.write_text(text([policy(name, "ns-0", "app-1", principal)]))
    started_s = time.monotonic()
    scratch.rename(folder / "manifests" / f"{name}.yaml")
    await nodes.until(lambda: wanted in nodes.heard)
    return (nodes.heard[wanted][0] - started_s) * 1000


async def _enrol(mesh: LargeMesh, nodes: LightNodes, count: int) -> float:
    """The agent of the first node reports 200 pods as captured; every node is told of each."""
    nodes.forget()
    started_s = time.monotonic()
    await nodes.report("node-0", [mesh.uid_of(each) for each in range(ENROLLED_AT_ONCE)])

    def told() -> int:
        return sum(len(times) >= count - nodes.broken for times in nodes.heard.values())

    await nodes.until(lambda: told() >= ENROLLED_AT_ONCE)
    return (max(max(times) for times in nodes.heard.values()) - started_s) * 1000


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
