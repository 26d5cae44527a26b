"""The enrolment report: a node says which pods it has captured; everybody else hears of it."""

from __future__ import annotations

import logging

import grpc
from google.protobuf.message import DecodeError

from control.kit.log import event
from control.server.callers.door import Context, Door
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
        """Answers when the new state is in the xDS cache, on its way to every stream."""
        caller = await self._door.admit(context, "report")
        try:
            request = pb.ReportRequest.FromString(data)
        except DecodeError:
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._door.refuse(context, "report", code, "not a report", reason="wire")
        if request.node != caller.node:
            code = grpc.StatusCode.PERMISSION_DENIED
            await self._door.refuse(
                context,
                "report",
                code,
                "the token is of another node",
                reason="other_node",
                node=caller.node,
                claimed=request.node,
            )
        try:
            changed = self._captured.report(request.node, request.captured_uids)
        except BadReport as exc:
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._door.refuse(context, "report", code, str(exc), reason=exc.reason)
        except OSError as exc:
            code = grpc.StatusCode.UNAVAILABLE
            await self._door.refuse(
                context, "report", code, "try again", reason="not_saved", error=exc
            )
        if changed:
            count = len(request.captured_uids)
            event(log, logging.INFO, "capture.reported", node=request.node, pods=count)
            self._publisher.publish()
        return pb.ReportResponse().SerializeToString()
