"""Takes the nodes' capture reports, and publishes which pods speak HBONE."""

from __future__ import annotations

import logging

import grpc
from google.protobuf.message import DecodeError

from control.kit.log import event
from control.server.callers.door import Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.sources.captured import BadReport, CapturedSet
from control.server.xds.publish import Publisher
from control.wire import node_pb2 as pb

log = logging.getLogger("enrolment")


class EnrolmentService:
    def __init__(self, captured: CapturedSet, publisher: Publisher, door: Door) -> None:
        self._captured = captured
        self._publisher = publisher
        self._door = door

    async def report(self, data: bytes, context: Context) -> bytes:
        """Take a report; answer once the new state is on its way to every stream."""
        caller = await self._door.admit(context, "report")
        try:
            request = pb.ReportRequest.FromString(data)
        except DecodeError:
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._door.refuse(context, "report", code, "not a report", CallRefusal.WIRE)
        if request.node != caller.node:
            code = grpc.StatusCode.PERMISSION_DENIED
            await self._door.refuse(
                context,
                "report",
                code,
                "the token is of another node",
                CallRefusal.OTHER_NODE,
                node=caller.node,
                claimed=request.node,
            )
        try:
            changed = self._captured.report(request.node, request.captured_uids)
        except BadReport as exc:
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._door.refuse(context, "report", code, str(exc), CallRefusal.BAD_REPORT)
        except OSError as exc:
            code = grpc.StatusCode.UNAVAILABLE
            await self._door.refuse(
                context, "report", code, "try again", CallRefusal.NOT_SAVED, error=exc
            )
        if changed:
            count = len(request.captured_uids)
            event(log, logging.INFO, "capture.reported", node=request.node, pods=count)
            self._publisher.publish()
        return pb.ReportResponse().SerializeToString()
