"""The agent on a real kernel: what a pod's connections meet, whatever starts or dies."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.kernel.agent_bed import Bed, Callers, bed_with_pod, eventually, ip
from tests.support.peers.pod_intents import pod

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

OUT4, OUT6 = "tunnel outbound 10.87.0.2:8080", "tunnel outbound [fd87::2]:8080"
IN4, IN6 = "tunnel plaintext 10.87.0.1:8080", "tunnel plaintext fd87::1:8080"


def test_a_running_pod_enters_and_leaves_the_mesh(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=False))
            await bed.agent()
            assert await bed.register("p1") == (200, {"uid": "p1", "state": "not_enrolled"})
            assert (bed.out(), bed.into()) == ("app", "app")
            older = bed.connect(bed.pod_netns, "10.87.0.2")

            ztunnel = await bed.ztunnel()
            await ztunnel.said(snapshot_sent=True)
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            captured = await bed.until("p1", "captured")
            await bed.control.reported({"p1"})
            assert captured["uncaptured_connections"] == 1
            assert captured["addresses"] == ["10.87.0.1", "fd87::1"]
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            assert (bed.out("fd87::2"), bed.into("fd87::1")) == (OUT6, IN6)
            assert bed.into(port=15008) == "tunnel hbone 10.87.0.1:15008"
            added = await ztunnel.said(added="p1")
            assert (added["pod"], added["account"]) == ("shop/p1", "web")
            assert older.recv(10) == b"app\n"  # as it was
            older.close()

            await bed.control.put(pod("p1", bed.node, enrolled=False))
            await bed.control.reported(set())
            await bed.until("p1", "not_enrolled")
            assert (bed.out(), bed.into()) == ("app", "app")
            # The ztunnel keeps it for what is open, unless the pod goes.
            ztunnel.lines.clear()
            assert (await bed.ask("DELETE", "/pods/p1"))[0] == 200
            await ztunnel.said(deleted="p1")

    asyncio.run(scenario())


def test_a_pod_does_not_start_before_it_is_captured(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.agent()
            status, answer = await bed.register("p1", timeout_s=0.2)
            assert (status, answer["reason"]) == (503, "no_intent")
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            status, answer = await bed.register("p1", timeout_s=0.5)
            assert (status, answer["reason"]) == (503, "no_ztunnel")
            assert (await bed.pod("p1"))["state"] == "pending"
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(bed.register("p1"))
                await bed.ztunnel()
            assert waiting.result() == (200, {"uid": "p1", "state": "captured"})
            assert bed.out() == OUT4

    asyncio.run(scenario())


def test_a_dead_ztunnel_closes_its_pods_and_the_next_one_opens_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, ztunnel):
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            await ztunnel.end(signal.SIGKILL)
            assert bed.out().startswith("refused")
            assert bed.into().startswith("refused")
            assert bed.out("fd87::2").startswith("refused")
            assert bed.into("fd87::1").startswith("refused")
            again = await bed.ztunnel()
            await again.said(snapshot_sent=True)
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            assert (await bed.pod("p1"))["state"] == "captured"

    asyncio.run(scenario())


def test_an_upgraded_ztunnel_takes_over_without_a_gap(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, old):
            with Callers(bed) as callers:
                new = await bed.ztunnel()
                await new.said(snapshot_sent=True)
                await old.end(signal.SIGTERM)
                before = callers.heard.total()
                await eventually(lambda: callers.heard.total() > before + 10, callers.heard)
            assert set(callers.heard) == {OUT4, IN4}

    asyncio.run(scenario())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_capture_outlives_the_agent_and_is_taken_up_again(tmp_path: Path, how: int) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, ztunnel):
            await bed.control.reported({"p1"})
            await agent.end(how)
            assert (bed.out(), bed.into()) == (OUT4, IN4)  # the ztunnel still has its listeners
            await ztunnel.end(signal.SIGKILL)
            assert bed.out().startswith("refused")
            reports = len(bed.control.reports)
            await bed.agent()
            assert (await bed.pod("p1"))["state"] == "captured"
            assert bed.out().startswith("refused")
            await bed.ztunnel()
            await eventually(lambda: bed.out() == OUT4)
            await bed.control.reported({"p1"})
            assert all(report == {"p1"} for report in bed.control.reports[reports:])

    asyncio.run(scenario())


def test_a_pod_that_vanished_while_the_agent_was_away_is_released(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, _):
            await agent.end(signal.SIGTERM)
            await bed.pod_app.end(signal.SIGKILL)
            ip("netns", "del", bed.pod_netns)
            await bed.agent()
            assert (await bed.until("p1", "pending"))["reason"] == "not_registered"
            _, status = await bed.ask("GET", "/status")
            assert next(m for m in status["maps"] if m["name"] == "pods")["used"] == 0

    asyncio.run(scenario())


def test_a_lost_registration_is_found_by_the_namespace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, _):
            await agent.end(signal.SIGKILL)
            (bed.run_folder / "state" / "p1.json").unlink()
            await bed.agent()
            found = await bed.until("p1", "captured")
            assert found["netns"].endswith((bed.pod_netns, "/ns/net"))

    asyncio.run(scenario())


def test_a_namespace_that_vanishes_is_let_go(tmp_path: Path) -> None:
    """The other end of its veth goes when the kernel has freed the namespace, not before."""

    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, ztunnel):
            await bed.pod_app.end(signal.SIGKILL)
            ip("netns", "del", bed.pod_netns)
            assert bed.has_link(bed.peer_netns)  # the ztunnel's listeners still hold it
            await ztunnel.said(deleted="p1")  # by the sweep; nobody called DELETE
            await eventually(lambda: not bed.has_link(bed.peer_netns))
            assert (await bed.until("p1", "pending"))["reason"] == "not_registered"

    asyncio.run(scenario())


def test_a_late_deletion_of_a_replaced_sandbox_leaves_the_pod_captured(tmp_path: Path) -> None:
    """The order of a real cluster: DEL of the old one, ADD of the new one, DEL of the old one."""

    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1", container_id="old") as (bed, _, _):
            assert (await bed.ask("DELETE", "/pods/p1?container_id=old"))[0] == 200
            await bed.replace_pod_namespace()
            answer = await bed.register("p1", container_id="new")
            assert answer == (200, {"uid": "p1", "state": "captured"})
            for _ in range(2):
                answer = await bed.ask("DELETE", "/pods/p1?container_id=old")
                assert answer == (200, {"uid": "p1", "kept": "other_container"})
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            answer = await bed.ask("DELETE", "/pods/p1?container_id=new")
            assert answer == (200, {"uid": "p1"})
            assert await bed.pod("p1") == {} or (await bed.pod("p1"))["state"] == "pending"

    asyncio.run(scenario())


def test_a_late_deletion_does_not_harm_the_pod_that_has_the_address_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "old") as (bed, _, ztunnel):
            await bed.replace_pod_namespace()
            await bed.control.put(pod("new", bed.node, enrolled=True, name="old"))
            answer = await bed.register("new", name="old")
            assert answer == (200, {"uid": "new", "state": "captured"})
            assert (await bed.ask("DELETE", "/pods/old"))[0] == 200
            await ztunnel.said(deleted="old")
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            await bed.control.reported({"new"})
            _, status = await bed.ask("GET", "/status")
            assert next(m for m in status["maps"] if m["name"] == "pods")["used"] == 1

    asyncio.run(scenario())


def test_the_same_uid_in_a_new_namespace_replaces_the_old_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, _ztunnel):
            await bed.replace_pod_namespace()
            assert await bed.register("p1") == (200, {"uid": "p1", "state": "captured"})
            await eventually(lambda: (bed.out(), bed.into()) == (OUT4, IN4))
            _, status = await bed.ask("GET", "/status")
            assert next(m for m in status["maps"] if m["name"] == "pods")["used"] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["ours", "--bare"])
def test_a_changed_address_is_captured_anew(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            first = [bytes([10, 87, 0, 1])]
            await bed.control.put(pod("p1", bed.node, enrolled=True, addresses=first))
            await bed.agent()
            await bed.ztunnel(*([] if kind == "ours" else [kind]))
            assert await bed.register("p1") == (200, {"uid": "p1", "state": "captured"})
            assert (await bed.pod("p1"))["addresses"] == ["10.87.0.1"]
            ip("-n", bed.pod_netns, "address", "del", "10.87.0.1/24", "dev", "eth0")
            ip("-n", bed.pod_netns, "address", "add", "10.87.0.7/24", "dev", "eth0")
            moved = [bytes([10, 87, 0, 7])]
            await bed.control.put(pod("p1", bed.node, enrolled=True, addresses=moved))

            async def is_told() -> bool:
                return bool((await bed.pod("p1"))["addresses"] == ["10.87.0.7"])

            await eventually(is_told)  # before that a connect would hang
            await eventually(lambda: bed.out() == OUT4)
            assert bed.into("10.87.0.7") == "tunnel plaintext 10.87.0.7:8080"

    asyncio.run(scenario())


def test_one_namespace_is_one_pod(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, _ztunnel):
            status, answer = await bed.register("p2")
            assert (status, answer["reason"]) == (409, "netns_taken")
            status, answer = await bed.register("p3", netns="/proc/self/ns/net")
            assert (status, answer["reason"]) == (400, "netns_refused")
            assert (await bed.pod("p1"))["state"] == "captured"

    asyncio.run(scenario())


def test_a_pod_may_be_named_by_a_process_and_without_uid(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=True, name="web"))
            await bed.agent()
            await bed.ztunnel()
            body = {"namespace": "shop", "name": "web", "pid": bed.pod_app.pid, "timeout_s": 8}
            answer = await bed.ask("POST", "/pods", body)
            assert answer == (200, {"uid": "p1", "state": "captured"})
            assert bed.out() == OUT4

    asyncio.run(scenario())


def test_a_pod_keeps_its_capture_when_the_process_that_named_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            agent = await bed.agent()
            ztunnel = await bed.ztunnel()
            body = {"namespace": "shop", "name": "p1", "uid": "p1", "pid": bed.pod_app.pid}
            assert (await bed.ask("POST", "/pods", body))[0] == 200
            await bed.pod_app.end(signal.SIGKILL)
            await agent.end(signal.SIGTERM)
            await bed.agent()  # looks at once; a running one would within five seconds
            found = await bed.until("p1", "captured")
            assert found["netns"].endswith(bed.pod_netns)
            assert bed.out() in (OUT4, "refused: ConnectionRefusedError")
            assert {"deleted": "p1"} not in ztunnel.lines[1:]

    asyncio.run(scenario())


def test_a_pod_that_a_ztunnel_refuses_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            await bed.agent()
            picky = await bed.ztunnel("--refuse", "p1")
            status, answer = await bed.register("p1", timeout_s=0.5)
            assert (status, answer["reason"]) == (503, "ztunnel_refused")
            assert (await bed.pod("p1"))["state"] == "failed"
            assert (bed.out(), bed.into()) == ("app", "app")
            await picky.end(signal.SIGKILL)
            await bed.ztunnel()
            await bed.until("p1", "captured")
            assert (bed.out(), bed.into()) == (OUT4, IN4)

    asyncio.run(scenario())


def test_deleting_a_pod_frees_its_namespace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, ztunnel):
            assert (await bed.ask("DELETE", "/pods/p1"))[0] == 200
            await ztunnel.said(deleted="p1")
            assert (await bed.ask("DELETE", "/pods/p1"))[0] == 200  # idempotent
            await bed.control.reported(set())
            assert (bed.out(), bed.into()) == ("app", "app")
            assert not list((bed.run_folder / "state").iterdir())

    asyncio.run(scenario())


def test_a_ztunnel_that_sends_no_listeners_is_served_by_its_ports(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            await bed.control.put(pod("p1", bed.node, enrolled=True))
            await bed.agent()
            await bed.ztunnel("--bare")
            assert await bed.register("p1") == (200, {"uid": "p1", "state": "captured"})
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            _, status = await bed.ask("GET", "/status")
            assert status["ztunnels"][0]["ours"] is False

    asyncio.run(scenario())


def test_checks_say_what_is_wrong(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, ztunnel):
            status, checks = await bed.ask("GET", "/check")
            assert status == 200
            wrong = {each["code"] for each in checks if each["result"] == "error"}
            assert wrong == set()
            await ztunnel.end(signal.SIGKILL)
            _, checks = await bed.ask("GET", "/check")
            (missing,) = [each for each in checks if each["result"] == "error"]
            assert missing["code"] == "TUL0701"
            assert missing["hint"]

    asyncio.run(scenario())


def test_an_agent_mounts_what_it_pins_on(tmp_path: Path) -> None:
    """A host whose init has mounted no bpffs; in a mount namespace of its own, so all is undone."""

    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            await bed.serve_control()
            script = 'while umount -l /sys/fs/bpf 2>/dev/null; do :; done; exec "$@"'
            process = await bed.start(
                *("unshare", "--mount", "--", "sh", "-c", script, "sh"), *bed.agent_command()
            )
            await eventually((bed.run_folder / "agent.sock").exists)
            _, checks = await bed.ask("GET", "/check")
            results = {check["code"]: check["result"] for check in checks}
            assert results["TUL0401"] == "ok"
            await process.end(signal.SIGTERM)

    asyncio.run(scenario())
