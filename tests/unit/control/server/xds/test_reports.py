"""Capture reports: whose word counts, and when it is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from control.model.workload import TunnelProtocol
from control.server.compile.settings import Settings
from control.server.sources.captured import CapturedSet
from control.server.xds.publish import Publisher
from control.server.xds.reports import EnrolmentService
from control.wire import node_pb2 as pb
from tests.support.calls import Aborted
from tests.support.control_door import DoorBench
from tests.support.manifests import load, pod

UID = "Kubernetes//Pod/shop/web"


class Bench(DoorBench):
    """A control plane whose mesh is one pod on n1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.captured = CapturedSet(folder / "captured.json")
        self.publisher = Publisher(Settings(), self.captured, self.metrics, self.clock)
        self.publisher.offer(load(pod()))
        self.publisher.publish()
        (self.uid,) = self.publisher.mesh.pods
        self.service = EnrolmentService(self.captured, self.publisher, self.door)

    def report(self, data: bytes, node: str = "n1") -> bytes:
        return asyncio.run(self.service.report(data, self.call(node)))

    @property
    def protocol(self) -> TunnelProtocol:
        return self.publisher.mesh.workloads[UID].tunnel_protocol


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def report(*uids: str, node: str = "n1") -> bytes:
    return pb.ReportRequest(node=node, captured_uids=uids).SerializeToString()


def test_the_answer_comes_after_the_publication(bench: Bench) -> None:
    assert bench.protocol is TunnelProtocol.NONE
    assert bench.report(report(bench.uid)) == b""
    assert bench.protocol is TunnelProtocol.HBONE
    assert bench.publisher.generation == 2
    bench.report(report(bench.uid))
    assert bench.publisher.generation == 2, "the same report again is no news"
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


def test_a_report_that_cannot_be_kept_is_asked_for_again(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "captured.json").mkdir()
    with pytest.raises(Aborted, match="UNAVAILABLE"):
        bench.report(report(bench.uid))
    assert bench.refused("report", "not_saved") == 1
    assert bench.protocol is TunnelProtocol.NONE
