"""Field numbers of ZDS, byte by byte: at either end of it may be a part of Istio."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from control.wire import zds_pb2 as pb


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (pb.ZdsHello(version=pb.V1), b"\x08\x01"),
        (pb.ZdsHello(version=pb.V1, side_by_side=True), b"\x08\x01\xc0\x3e\x01"),  # ours: 1000
        (
            pb.WorkloadRequest(add=pb.AddWorkload(uid="u")),
            b"\x0a\x03\x0a\x01u",
        ),
        (
            pb.WorkloadRequest(
                add=pb.AddWorkload(
                    uid="u",
                    workload_info=pb.WorkloadInfo(name="n", namespace="s", service_account="a"),
                )
            ),
            b"\x0a\x0e\x0a\x01u\x12\x09\x0a\x01n\x12\x01s\x1a\x01a",
        ),
        (pb.WorkloadRequest(**{"del": pb.DelWorkload(uid="u")}), b"\x12\x03\x12\x01u"),
        (pb.WorkloadRequest(snapshot_sent=pb.SnapshotSent()), b"\x1a\x00"),
        (pb.WorkloadRequest(keep=pb.KeepWorkload(uid="u")), b"\x2a\x03\x0a\x01u"),
        (pb.WorkloadResponse(ack=pb.Ack(error="e")), b"\x0a\x03\x0a\x01e"),
    ],
)
def test_messages_have_the_numbers_of_istio(message: Message, wire: bytes) -> None:
    assert message.SerializeToString() == wire
