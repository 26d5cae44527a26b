"""Capture reports: whose word counts, and when it is answered."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from control.model.address import parse_address
from control.model.workload import TunnelProtocol
from control.server.callers.budget import node_tenant
from control.server.compile.settings import Settings
from control.server.sources import captured
from control.server.sources.captured import CapturedSet
from control.server.xds.publish import Publisher
from control.server.xds.reports import EnrolmentService
from control.wire import node_pb2 as pb
from tests.support.calls import Aborted
from tests.support.control_door import DoorBench
from tests.support.manifests import load, pod

UID = "Kubernetes//Pod/shop/web"
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
"""


class Bench(DoorBench):
    """A control plane whose mesh is one pod on n1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.runner = asyncio.Runner()  # one loop for all reports, as in the process
        self.folder = folder / "captured"
        self.captured = CapturedSet(folder / "captured", is_new=True)
        self.publisher = Publisher(Settings(), self.captured, self.metrics, self.clock)
        self.show()
        (self.uid,) = self.publisher.mesh.pods
        self.service = EnrolmentService(self.captured, self.publisher, self.door, self.clock)

    def restart(self) -> None:
        """The process dies, and the next one finds what is on the disk."""
        self.captured = CapturedSet(self.folder)
        self.publisher = Publisher(Settings(), self.captured, self.metrics, self.clock)
        self.show()
        self.service = EnrolmentService(self.captured, self.publisher, self.door, self.clock)

    def show(self) -> None:
        self.publisher.offer(load(NAMESPACE + pod()))
        self.publisher.publish()

    def report(self, data: bytes, node: str = "n1") -> bytes:
        async def whole() -> bytes:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self.publisher.run_captures())
                try:
                    return await self.service.report(data, self.admitted(node), self.call(node))
                finally:
                    telling.cancel()

        try:
            return self.runner.run(whole())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    @property
    def protocol(self) -> TunnelProtocol:
        return self.publisher.mesh.workloads[UID].tunnel_protocol


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with bench.runner:
        yield bench


def report(*uids: str, node: str = "n1") -> bytes:
    return pb.ReportRequest(node=node, captured_uids=uids).SerializeToString()


def test_the_answer_comes_after_the_publication(bench: Bench) -> None:
    assert bench.protocol is TunnelProtocol.NONE
    told = pb.ReportResponse.FromString(bench.report(report(bench.uid)))
    assert bench.protocol is TunnelProtocol.HBONE
    assert bench.publisher.generation == 2
    again = pb.ReportResponse.FromString(bench.report(report(bench.uid)))
    assert bench.publisher.generation == 2, "the same report again is no news"
    assert told.replica == again.replica, "by whatever address it was reached"
    assert not told.replica_addresses, "nobody knows"
    there = [parse_address("10.9.0.1"), parse_address("fd00::1")]
    bench.service.addresses = lambda: there
    again = pb.ReportResponse.FromString(bench.report(report(bench.uid)))
    assert list(again.replica_addresses) == there
    bench.restart()
    after = pb.ReportResponse.FromString(bench.report(report(bench.uid)))
    assert after.replica not in ("", told.replica)
    bench.report(report())
    assert bench.protocol is TunnelProtocol.NONE


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "wire"),
        (report(node="n2"), grpc.StatusCode.PERMISSION_DENIED, "other_node"),
        (report("u" * 300), grpc.StatusCode.INVALID_ARGUMENT, "bad_report"),
    ],
)
def test_what_a_node_may_not_say_changes_nothing(
    bench: Bench, data: bytes, code: grpc.StatusCode, reason: str
) -> None:
    bench.report(report(bench.uid))
    with pytest.raises(Aborted) as caught:
        bench.report(data)
    assert caught.value.code is code
    assert bench.refused("report", reason) == 1
    assert bench.protocol is TunnelProtocol.HBONE


def test_a_full_disk_keeps_no_pod_out_and_is_said_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(captured, "write_atomic", full)
        bench.report(report(bench.uid))
        bench.report(report(bench.uid, "other"))
        bench.report(report(bench.uid))
        bench.runner.run(bench.service.save_again())
    assert bench.protocol is TunnelProtocol.HBONE
    assert [each.message for each in caplog.records] == ["capture.not_saved"]
    assert not CapturedSet(bench.folder).has("n1", bench.uid)
    bench.runner.run(bench.service.save_again())
    assert CapturedSet(bench.folder).has("n1", bench.uid), "saved when there was room, unasked"


@pytest.mark.parametrize("captures", [True, False], ids=["captured", "released"])
def test_a_report_whose_agent_dies_meanwhile_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, captures: bool
) -> None:
    """The next agent's report is the same, and would not be news."""
    told = report(bench.uid) if captures else report()
    bench.report(report() if captures else report(bench.uid))
    write = captured.write_atomic
    unlink = Path.unlink

    async def killed_in_the_midst() -> None:
        on_its_way, goes_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
        published = asyncio.Event()
        bench.publisher.listen(lambda _: published.set())

        def stuck(*_: object, **__: object) -> None:
            loop.call_soon_threadsafe(on_its_way.set)
            assert goes_on.wait(10)

        monkeypatch.setattr(captured, "write_atomic", stuck)
        monkeypatch.setattr(Path, "unlink", stuck)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(bench.publisher.run_captures())
            call = tasks.create_task(
                bench.service.report(told, bench.admitted("n1"), bench.call("n1"))
            )
            await on_its_way.wait()
            call.cancel()
            goes_on.set()
            async with asyncio.timeout(10):
                await published.wait()
            telling.cancel()
        monkeypatch.setattr(captured, "write_atomic", write)
        monkeypatch.setattr(Path, "unlink", unlink)

    bench.runner.run(killed_in_the_midst())
    assert (bench.protocol is TunnelProtocol.HBONE) is captures
    bench.runner.run(bench.service.save_again())
    assert CapturedSet(bench.folder).has("n1", bench.uid) is captures


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(captured, "write_atomic", full)


def test_a_report_that_the_disk_had_no_room_for_is_no_plaintext_after_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_room(patch)
        bench.report(report(bench.uid))
        for _ in range(2):
            bench.restart()
            assert bench.protocol is TunnelProtocol.HBONE
        bench.publisher.publish()
        assert bench.protocol is TunnelProtocol.HBONE
        bench.report(report(node="n2"), "n2")
        assert bench.protocol is TunnelProtocol.HBONE, "another node's word"
        bench.report(report())
        assert bench.protocol is TunnelProtocol.NONE, "its own"


def test_a_doubt_is_over_at_once_where_nodes_report_and_in_time_where_they_do_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        no_room(patch)
        bench.report(report(bench.uid))
    bench.restart()
    with caplog.at_level(logging.WARNING):
        bench.runner.run(bench.service.end_doubt())
    line = caplog.records[-1]
    assert (line.message, vars(line)["fields"]) == (
        "captures.doubt_ended",
        {"pods": 1, "silent": "n1"},
    )
    bench.publisher.publish()
    assert bench.protocol is TunnelProtocol.NONE
    bench.restart()
    assert bench.protocol is TunnelProtocol.NONE, "whole again"


def test_reports_of_nodes_that_are_gone_keep_no_other_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "NODES_MAX", 1)
    bench.report(report("old", node="n0"), "n0")
    bench.report(report(bench.uid))
    assert bench.protocol is TunnelProtocol.HBONE
    with pytest.raises(Aborted):
        bench.report(report("new", node="n2"), "n2")


def test_a_node_that_reports_to_and_fro_is_slowed_and_no_other_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = bench.service._pace
    pace.spend(node_tenant("n1"), pace.pace.burst + pace.pace.per_s * 60, bench.clock.monotonic_s())
    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        bench.report(report(bench.uid))
    assert bench.refused("report", "captures_rate") == 1
    assert bench.protocol is TunnelProtocol.NONE
    bench.report(report(bench.uid, node="n2"), "n2")
    bench.clock.pass_s(61)
    bench.report(report(bench.uid))
    assert bench.protocol is TunnelProtocol.HBONE


def placing(uid: str, *addresses: bytes) -> bytes:
    pods = [pb.CapturedPod(uid=uid, addresses=addresses)]
    request = pb.ReportRequest(node="n1", captured_uids=[uid], captured_pods=pods)
    return request.SerializeToString()


def test_a_pod_without_an_address_is_a_workload_from_its_nodes_report_on(bench: Bench) -> None:
    bench.publisher.offer(load(pod(address="")))
    bench.publisher.publish()
    assert UID not in bench.publisher.mesh.workloads
    bench.report(placing(bench.uid, b"\x0a\x01\x00\x09"))
    found = bench.publisher.mesh.workloads[UID]
    assert (found.addresses, found.tunnel_protocol) == (
        (b"\x0a\x01\x00\x09",),
        TunnelProtocol.HBONE,
    )
    bench.publisher.publish()  # a whole compilation finds the same
    assert bench.publisher.mesh.workloads[UID] == found
    bench.report(report())
    assert UID not in bench.publisher.mesh.workloads


def test_a_sandbox_that_was_replaced_is_where_its_node_says(bench: Bench) -> None:
    """The object has the address of the sandbox before until the kubelet has written it."""
    before = bench.publisher.mesh.workloads[UID].addresses
    bench.report(placing(bench.uid, b"\x0a\x01\x00\x09"))
    found = bench.publisher.mesh.workloads[UID]
    assert (found.addresses, found.tunnel_protocol) == (
        (b"\x0a\x01\x00\x09",),
        TunnelProtocol.HBONE,
    )
    bench.publisher.publish()  # a whole compilation finds the same
    assert bench.publisher.mesh.workloads[UID] == found
    bench.report(report(bench.uid))  # an agent that names no address
    assert bench.publisher.mesh.workloads[UID].addresses == before
    bench.report(placing(bench.uid, b"\x0a\x01\x00\x09"))
    bench.publisher.offer(load(pod(address="10.1.0.9")))
    bench.publisher.publish()
    assert bench.publisher.mesh.workloads[UID] == found


@pytest.mark.parametrize("addresses", [[b"\x0a"], [b"\x0a\x01\x00\x09", b"\x0a\x01\x00\x0a"]])
def test_a_report_with_odd_addresses_is_refused(bench: Bench, addresses: list[bytes]) -> None:
    with pytest.raises(Aborted):
        bench.report(placing(bench.uid, *addresses))
    assert bench.protocol is TunnelProtocol.NONE
