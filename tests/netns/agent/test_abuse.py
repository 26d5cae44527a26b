"""The agent among hostile and broken neighbours: ztunnels, callers, disks, and its own restarts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel.agent_bed import Bed, Callers, bed_with_pod, eventually, ip
from tests.support.peers.pod_intents import pod
from tests.support.peers.zds_client import ODD

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

OUT4, IN4 = "tunnel outbound 10.87.0.2:8080", "tunnel plaintext 10.87.0.1:8080"


def test_restarts_of_the_agent_fail_no_connection(tmp_path: Path) -> None:
    """Killed at any moment of its start, fifty milliseconds further each time."""

    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, _):
            await bed.control.reported({"p1"})
            reports = len(bed.control.reports)
            with Callers(bed) as callers:
                for number in range(10):
                    await agent.end((signal.SIGKILL, signal.SIGTERM)[number % 2])
                    agent = await bed.start(*bed.agent_command())
                    await asyncio.sleep(0.05 * number)
                await eventually(bed.answers)
                await bed.until("p1", "captured")
                await eventually(lambda: len(bed.control.reports) > reports)
            assert set(callers.heard) == {OUT4, IN4}
            assert callers.heard.total() > 100
            assert set(bed.control.reports[reports:]) == {frozenset({"p1"})}

    asyncio.run(scenario())


def test_a_ztunnel_that_answers_wrongly_captures_nothing_and_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            await bed.control.put(pod("p2", bed.node, enrolled=False))
            agent = await bed.agent()
            peer = f"/run/netns/{bed.peer_netns}"
            assert (await bed.register("p2", netns=peer))[0] == 200  # so it has all it needs
            descriptors = len(os.listdir(f"/proc/{agent.pid}/fd"))
            for kind in ODD:
                odd = await bed.ztunnel("--odd", kind)
                status, answer = await bed.register("p1", timeout_s=0.2)
                assert (status, kind) == (503, kind), answer
                await odd.said(odd=kind)
                other = await bed.register("p2", netns=peer)
                assert other == (200, {"uid": "p2", "state": "not_enrolled"})
                assert (bed.out(), bed.into()) == ("app", "app")
                await odd.end(signal.SIGKILL)

            async def is_clean() -> bool:
                _, found = await bed.ask("GET", "/status")
                return not found["ztunnels"]

            await eventually(is_clean)
            # One leaked answer would be two or more; one is an admin connection that closes.
            await eventually(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= descriptors + 1)
            await bed.ztunnel()
            assert await bed.register("p1") == (200, {"uid": "p1", "state": "captured"})
            assert (bed.out(), bed.into()) == (OUT4, IN4)

    asyncio.run(scenario())


def test_a_hung_ztunnel_delays_neither_release_nor_other_pods(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, ztunnel):
            await bed.control.put(pod("p2", bed.node, enrolled=False))
            os.kill(ztunnel.pid, signal.SIGSTOP)
            async with asyncio.TaskGroup() as tasks:
                deleting = tasks.create_task(bed.ask("DELETE", "/pods/p1"))
                await bed.until("p1", "releasing")  # before that a call would hang
                await eventually(lambda: bed.out() == "app")
                assert not deleting.done()  # the ztunnel still holds the namespace
                netns = f"/run/netns/{bed.peer_netns}"
                assert (await bed.register("p2", netns=netns))[0] == 200
                fresh = await bed.ztunnel()
                await bed.control.put(pod("p2", bed.node, enrolled=True))
                await fresh.said(added="p2")
                assert not deleting.done()
                os.kill(ztunnel.pid, signal.SIGCONT)
            assert deleting.result()[0] == 200

    asyncio.run(scenario())


def test_bad_registrations_are_refused_with_a_reason_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, _ztunnel):
            await bed.control.put(pod("p2", bed.node, enrolled=True))
            await eventually(lambda: _known(bed, "p2"))
            peer = f"/run/netns/{bed.peer_netns}"
            link, pipe = tmp_path / "link", tmp_path / "pipe"
            link.symlink_to(peer)
            os.mkfifo(pipe)
            refused: list[tuple[dict[str, Any], int, str]] = [
                ({"netns": "/proc/1/ns/net"}, 400, "netns_refused"),
                ({"netns": "/proc/1/ns/mnt"}, 400, "netns_refused"),
                ({"netns": str(tmp_path)}, 400, "netns_refused"),
                ({"netns": str(pipe)}, 400, "netns_refused"),
                ({"netns": "/dev/null"}, 400, "netns_refused"),
                ({"netns": "/" + "x" * 5000}, 400, "netns_refused"),
                ({"netns": "/run/netns/\ud800"}, 400, "config"),
                ({"netns": f"/run/netns/{bed.pod_netns}"}, 409, "netns_taken"),
                ({"netns": peer, "name": "p1"}, 409, "pod_mismatch"),
                ({"netns": peer, "namespace": "other"}, 409, "pod_mismatch"),
                ({"netns": peer, "uid": "é" * 60}, 400, "config"),
                ({"netns": None, "pid": 2**70}, 400, "netns_refused"),
                ({"netns": None, "pid": 1}, 400, "netns_refused"),
                ({"netns": peer, "uid": "p3", "name": "p3", "timeout_s": 0}, 503, "no_intent"),
            ]
            for fields, status, reason in refused:
                async with asyncio.timeout(1):
                    answer = await bed.register("p2", **fields)
                assert (answer[0], answer[1]["reason"]) == (status, reason), fields
            assert (await bed.ask("DELETE", "/pods/p3"))[0] == 200
            for body in (b"[" * 100_000, b'{"pid": 1' + b"0" * 5000 + b"}"):
                assert await _posted(bed, body) == 400
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            answer = await bed.register("p2", netns=str(link))
            assert answer == (200, {"uid": "p2", "state": "captured"})

    asyncio.run(scenario())


async def _known(bed: Bed, uid: str) -> bool:
    return bool(await bed.pod(uid))


async def _posted(bed: Bed, body: bytes) -> int:
    """The status of a POST of these very bytes."""
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_unix_connection(bed.run_folder / "agent.sock")
        head = f"POST /pods HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readline()
        writer.close()
        return int(answer.split()[1])


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of two pages there; yields the file that fills it."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tq", str(folder)], check=True)
    try:
        yield folder / "ballast"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.tell() < 1 << 20:
            file.write(bytes(4096))
    assert ballast.stat().st_size < 1 << 20


def test_a_full_disk_refuses_new_pods_and_keeps_the_old_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            with full_disk(bed.run_folder / "state") as ballast:
                await bed.serve_control()
                await bed.control.put(pod("p1", bed.node, enrolled=False))
                await bed.control.put(pod("p2", bed.node, enrolled=True))
                agent = await bed.agent()
                await bed.ztunnel()
                assert (await bed.register("p1"))[0] == 200
                fill(ballast)
                peer = f"/run/netns/{bed.peer_netns}"
                status, answer = await bed.register("p2", netns=peer)
                assert (status, answer["reason"]) == (503, "state_unwritable")
                # The control plane's wish is carried out all the same, and written down later.
                account = {"service_account": "another"}
                await bed.control.put(pod("p1", bed.node, enrolled=True, **account))
                await bed.until("p1", "captured")
                await bed.control.reported({"p1"})
                assert (bed.out(), bed.into()) == (OUT4, IN4)
                ballast.unlink()
                record = bed.run_folder / "state" / "p1.json"
                await eventually(lambda: "another" in record.read_text())
                record.write_text('{"uid": "p1", "addresses": "10.87.0.1"}')
                await agent.end(signal.SIGKILL)
                agent = await bed.agent()
                await bed.until("p1", "captured")  # found again by its namespace
                assert (await bed.register("p2", netns=peer))[0] == 200
                await agent.end(signal.SIGTERM)

    asyncio.run(scenario())


def test_pods_that_vanish_together_are_let_go_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            names = [f"{bed.pod_netns}-{number}" for number in range(12)]
            await bed.serve_control()
            await bed.agent()
            await bed.ztunnel()
            try:
                for number, name in enumerate(names):
                    ip("netns", "add", name)
                    ip("-n", name, "addr", "add", f"10.87.1.{number}/32", "dev", "lo")
                    where = [bytes([10, 87, 1, number])]
                    await bed.control.put(pod(name, bed.node, enrolled=True, addresses=where))
                async with asyncio.timeout(4), asyncio.TaskGroup() as tasks:
                    answers = [
                        tasks.create_task(bed.register(name, netns=f"/run/netns/{name}"))
                        for name in names
                    ]
                assert {answer.result()[0] for answer in answers} == {200}
                await bed.control.reported(set(names))
            finally:
                for name in names:
                    ip("netns", "del", name)
            await bed.control.reported(set())
            _, status = await bed.ask("GET", "/status")
            assert next(m for m in status["maps"] if m["name"] == "pods")["used"] == 0

    asyncio.run(scenario())


def test_a_hung_control_plane_hangs_nobody(tmp_path: Path) -> None:
    """It takes connections and says nothing: callers hear no in time, what is captured stays."""

    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            async with bed.control.serving(tmp_path):
                await bed.control.put(pod("p1", bed.node, enrolled=True))
                agent = await bed.agent()
                await bed.ztunnel()
                assert (await bed.register("p1"))[0] == 200
            with socket.create_server(("127.0.0.1", bed.control.port), reuse_port=True):
                await agent.end(signal.SIGKILL)
                await bed.agent()
                await eventually(lambda: bed.out() == OUT4)
                peer = f"/run/netns/{bed.peer_netns}"
                async with asyncio.timeout(1):
                    status, answer = await bed.register("p2", netns=peer, timeout_s=0.3)
                assert (status, answer["reason"]) == (503, "no_intent")
                assert (await bed.register("p1"))[1]["state"] == "captured"
                assert (bed.out(), bed.into()) == (OUT4, IN4)
            await bed.serve_control()
            await bed.control.put(pod("p2", bed.node, enrolled=False))
            assert (await bed.register("p2", netns=peer))[1]["state"] == "not_enrolled"

    asyncio.run(scenario())
