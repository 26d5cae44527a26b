"""The agent's half of the direct path on a real kernel; the ztunnel says what a test says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from agent.datapath import sockets
from control.model.address import Endpoint, parse_address
from tests.support.kernel.agent_bed import APP_PORT, Bed, Process, eventually
from tests.support.kernel.netns import Network
from tests.support.kernel.netns import eventually as wait_until
from tests.support.peers.pod_intents import pod

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

OUT4, OUT6 = "tunnel outbound 10.87.0.2:8080", "tunnel outbound [fd87::2]:8080"
VIP = "10.99.0.1"
SO_COOKIE = 57
VERDICT = {"kind": "verdict", "source": "p1", "destination": "p2", "port": APP_PORT}


@dataclass
class Mesh:
    bed: Bed
    agent: Process
    ztunnel: Process

    async def allow(self, generation: int = 1) -> None:
        await self.ztunnel.tell(**VERDICT, generation=generation)
        await eventually(self.is_direct)

    def is_direct(self) -> bool:
        return self.bed.out() == "app"

    async def closed(self, number: int) -> dict[str, Any]:
        while True:
            for flow in (await self.ztunnel.heard("closed"))["flows"]:
                if flow["id"] == number:
                    return dict(flow)

    async def until_direct_says(self, **wanted: Any) -> None:
        seen: dict[str, Any] = {}

        async def reached() -> bool:
            seen.update(await self.bed.direct())
            return wanted.items() <= seen.items()

        await eventually(reached, seen)


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[Mesh]:
    """p1 at .1 and p2 at .2, both captured and allowed to go direct; no verdict yet."""
    async with Bed(folder) as bed:
        await bed.serve_control()
        for uid in ("p1", "p2"):
            await bed.control.put(pod(uid, bed.node, enrolled=True, direct=True))
        agent = await bed.agent()
        ztunnel = await bed.direct_ztunnel()
        await ztunnel.said(snapshot_sent=True)
        for uid, netns in (("p1", bed.pod_netns), ("p2", bed.peer_netns)):
            status, answer = await bed.register(uid, netns=f"/run/netns/{netns}")
            assert (status, answer["state"]) == (200, "captured")
        made = Mesh(bed, agent, ztunnel)
        await made.until_direct_says(on=True, pods=2)
        yield made


class Prober:
    """Calls as fast as it can, and notes when each call began."""

    def __init__(self, call: Callable[[], str]) -> None:
        self._call = call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.heard: list[tuple[float, str]] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            self.heard.append((time.monotonic(), self._call()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_verdict_opens_the_direct_path_and_the_ztunnels_death_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            bed, ztunnel = made.bed, made.ztunnel
            assert (bed.out(), bed.out("fd87::2")) == (OUT4, OUT6)
            await made.allow()
            assert bed.out("fd87::2") == "app"
            assert (
                bed.hear(bed.pod_netns, "10.87.0.2", APP_PORT + 1)
                == "tunnel outbound 10.87.0.2:8081"
            )
            assert bed.into() == "tunnel outbound 10.87.0.1:8080"  # the other way round: no verdict
            closed = await ztunnel.heard("closed")
            (flow, *_) = closed["flows"]
            assert (flow["source"], flow["destination"]) == ("p1", "p2")
            assert flow["target"] in ("10.87.0.2:8080", "[fd87::2]:8080")
            assert flow["received"] == 4
            page = await bed.metrics()
            assert "tulle_agent_direct_on 1.0" in page
            assert "tulle_agent_direct_verdicts_total 1.0" in page
            assert 'tulle_agent_connections_total{path="direct"}' in page
            assert 'tulle_agent_map_drops_total{map="flows"} 0.0' in page
            await ztunnel.end(signal.SIGKILL)
            await made.until_direct_says(on=False, reason="no_ztunnel")
            assert bed.out().startswith("refused")
            assert bed.out("fd87::2").startswith("refused")

    asyncio.run(scenario())


def test_a_dead_agents_lease_runs_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            await made.agent.end(signal.SIGKILL)
            await eventually(lambda: made.bed.out() == OUT4)
            assert made.bed.out("fd87::2") == OUT6

    asyncio.run(scenario())


def test_an_agent_that_wakes_up_late_brings_nothing_back(tmp_path: Path) -> None:
    """The ztunnel gave up waiting for it long ago; its words are still in the socket."""

    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            os.kill(made.agent.pid, signal.SIGSTOP)
            await eventually(lambda: made.bed.out() == OUT4)
            await made.ztunnel.tell(**VERDICT, generation=1)
            await made.ztunnel.tell(kind="generation", generation=2)
            with Prober(made.bed.out) as prober:
                await eventually(lambda: len(prober.heard) > 5)
                os.kill(made.agent.pid, signal.SIGCONT)
                await made.ztunnel.heard("generation", generation=2)
                await made.until_direct_says(on=True)
                count = len(prober.heard)
                await eventually(lambda: len(prober.heard) > count + 5)
            assert {what for _, what in prober.heard} == {OUT4}
            await made.allow(generation=2)

    asyncio.run(scenario())


def test_an_agent_that_is_stopped_ends_the_lease_itself_and_the_next_one_trusts_nothing(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            await made.agent.end(signal.SIGTERM)
            assert made.bed.out() == OUT4
            await made.bed.agent()
            await made.until_direct_says(on=True, pods=2)
            assert made.bed.out() == OUT4  # what the last one wrote means nothing now
            await made.allow()

    asyncio.run(scenario())


def test_a_new_agent_finds_the_live_connections_and_can_cut_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            with made.bed.connect(made.bed.pod_netns, "10.87.0.2") as live:
                assert live.recv(10) == b"app\n"
                port = live.getsockname()[1]
                await made.ztunnel.heard("opened")
                await made.agent.end(signal.SIGKILL)
                await made.bed.agent()
                await made.until_direct_says(on=True, flows=1)
                await made.ztunnel.tell(kind="replay")
                (flow,) = (await made.ztunnel.heard("opened"))["flows"]
                assert (flow["source"], flow["client"]) == ("p1", f"10.87.0.1:{port}")
                await made.ztunnel.tell(kind="cut", id=flow["id"])
                with pytest.raises(ConnectionError):
                    live.recv(10)
            assert (await made.closed(flow["id"]))["error"] == "aborted"

    asyncio.run(scenario())


def test_a_new_generation_voids_every_verdict_before_it_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            await made.ztunnel.tell(kind="generation", generation=2)
            await made.ztunnel.heard("generation", generation=2)
            assert made.bed.out() == OUT4
            await made.ztunnel.tell(**VERDICT, generation=1)
            await made.ztunnel.tell(kind="generation", generation=3)
            await made.ztunnel.heard("generation", generation=3)
            assert made.bed.out() == OUT4
            await made.allow(generation=3)

    asyncio.run(scenario())


def test_no_call_goes_direct_once_a_generation_is_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            after = 0
            for generation in range(2, 12):
                await made.allow(generation - 1)
                with Prober(made.bed.out) as prober:
                    await eventually(lambda p=prober: len(p.heard) > 5)
                    await made.ztunnel.tell(kind="generation", generation=generation)
                    await made.ztunnel.heard("generation", generation=generation)
                    void_s, count = time.monotonic(), len(prober.heard)
                    await eventually(lambda p=prober, n=count: len(p.heard) > n + 5)
                late = [what for began_s, what in prober.heard if began_s > void_s]
                assert set(late) == {OUT4}
                after += len(late)
            assert after > 40

    asyncio.run(scenario())


def test_an_upgrade_of_the_ztunnel_starts_from_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            old, new = made.ztunnel, await made.bed.direct_ztunnel(generation=1)
            await new.said(snapshot_sent=True)
            await made.until_direct_says(on=True, ztunnel_generation=1)
            assert made.bed.out() == OUT4
            await old.tell(**VERDICT, generation=1)
            await old.tell(kind="generation", generation=9)
            await old.heard("generation", generation=9)
            assert made.bed.out() == OUT4
            made.ztunnel = new
            await made.allow()
            await old.end(signal.SIGKILL)
            await made.until_direct_says(on=True)
            assert made.bed.out() == "app"

    asyncio.run(scenario())


@pytest.mark.parametrize("uid", ["p1", "p2"])
def test_whoever_leaves_the_mesh_is_not_direct_even_while_it_drains(
    tmp_path: Path, uid: str
) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            await made.bed.control.put(pod(uid, made.bed.node, enrolled=False, direct=True))
            await made.bed.until(uid, "not_enrolled")
            # p1 is outside: its connection meets p2's plaintext listener. p2 outside: p1 tunnels.
            expected = "tunnel plaintext 10.87.0.2:8080" if uid == "p1" else OUT4
            assert made.bed.out() == expected

    asyncio.run(scenario())


@pytest.mark.parametrize("uid", ["p1", "p2"])
def test_the_switch_of_a_namespace_keeps_its_pods_in_the_tunnel(tmp_path: Path, uid: str) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            told = pod(uid, made.bed.node, enrolled=True, direct=False, direct_reason="because")
            await made.bed.control.put(told)

            async def is_off() -> bool:
                return (await made.bed.pod(uid)).get("direct") is False

            await eventually(is_off)
            assert made.bed.out() == OUT4
            assert (await made.bed.pod(uid))["direct_reason"] == "because"
            await made.ztunnel.tell(**VERDICT, generation=1)
            await made.ztunnel.tell(kind="generation", generation=2)
            await made.ztunnel.heard("generation", generation=2)
            assert made.bed.out() == OUT4
            await made.bed.control.put(pod(uid, made.bed.node, enrolled=True, direct=True))
            await made.until_direct_says(pods=2)
            await made.allow(generation=2)

    asyncio.run(scenario())


def test_a_service_is_reached_directly(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            slot = {"weight": 1, "destination": "p2", "address": "10.87.0.2", "port": APP_PORT}
            service = {"kind": "service", "source": "p1", "vip": VIP, "port": 80}
            await made.ztunnel.tell(**service, total=1, slots=[slot])
            await eventually(lambda: made.bed.hear(made.bed.pod_netns, VIP, 80) == "app")
            await made.ztunnel.tell(**service, slots=[])
            gone = f"tunnel outbound {VIP}:80"
            await eventually(lambda: made.bed.hear(made.bed.pod_netns, VIP, 80) == gone)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["10.87.0.2", "fd87::2"])
def test_a_live_connection_is_told_of_again_and_cut(tmp_path: Path, host: str) -> None:
    async def scenario() -> None:
        async with mesh(tmp_path) as made:
            await made.allow()
            with made.bed.connect(made.bed.pod_netns, host) as live:
                assert live.recv(10) == b"app\n"
                (flow,) = (await made.ztunnel.heard("opened"))["flows"]
                await made.ztunnel.tell(kind="replay")
                assert flow["id"] in [
                    f["id"] for f in (await made.ztunnel.heard("opened"))["flows"]
                ]
                other = made.bed.connect(made.bed.pod_netns, host)
                with other:
                    assert other.recv(10) == b"app\n"
                    await made.ztunnel.tell(kind="cut", id=flow["id"])
                    with pytest.raises(ConnectionError):
                        live.recv(10)
                    other.settimeout(0.2)
                    with pytest.raises(TimeoutError):
                        other.recv(10)  # exactly that one
            assert (await made.closed(flow["id"]))["error"] == "aborted"

    asyncio.run(scenario())


@pytest.mark.parametrize("ips", [("10.87.0.1", "10.87.0.2"), ("fd87::1", "fd87::2")])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_bytes_are_seen_and_one_connection_is_cut_but_never_its_listener(
    ips: tuple[str, str], is_mapped: bool
) -> None:
    is_v4 = "." in ips[0]
    with Network("ta") as network:
        near, far = (
            network.pod(f"p{n}", ip if is_v4 else None, None if is_v4 else ip)
            for n, ip in enumerate(ips)
        )
        dialled = f"::ffff:{ips[1]}" if is_mapped and is_v4 else ips[1]
        with (
            far.listen("::", APP_PORT, dual=True) as app,
            near.socket(socket.AF_INET6 if ":" in dialled else socket.AF_INET) as live,
            near.fd() as here,
            far.fd() as there,
        ):
            live.connect((dialled, APP_PORT))
            with app.accept()[0] as accepted:
                live.sendall(b"x" * 1000)
                accepted.sendall(b"yes")
                cookie = int.from_bytes(live.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")

                def moved() -> tuple[int, int]:
                    found = [each for part in sockets.transfers(here) for each in part]
                    return {each.cookie: (each.sent, each.received) for each in found}[cookie]

                assert live.recv(10) == b"yes"
                wait_until(lambda: moved() == (1000, 3), "both directions counted")
                client = Endpoint(parse_address(ips[0]), live.getsockname()[1])
                server = Endpoint(parse_address(ips[1]), APP_PORT)
                assert sockets.destroy(there, server, client)
                with pytest.raises(ConnectionError):
                    live.recv(10)
            assert not sockets.destroy(there, server, client)
            assert not sockets.destroy(here, client, server)
            with near.socket(live.family) as again:
                again.connect((dialled, APP_PORT))
