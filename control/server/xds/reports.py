"""Takes the nodes' capture reports, and publishes which pods speak HBONE."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

import grpc
from google.protobuf.message import DecodeError

from control.kit.clock import Clock
from control.kit.errors import MeshError, WireError
from control.kit.log import event
from control.model.address import Address
from control.server.callers.budget import CAPTURES, REPORTING, Paces, node_tenant
from control.server.callers.door import AdmittedCall, Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.callers.turns import Turns
from control.server.sources.captured import (
    UID_CHARS_MAX,
    UIDS_PER_NODE_MAX,
    BadReport,
    CapturedSet,
    Reported,
)
from control.server.xds.publish import Publisher
from control.wire import node_pb2 as pb
from control.wire.convert import address_from_wire

log = logging.getLogger("enrolment")

# A uid twice, two addresses, and the frames around them.
REPORT_BYTES_MAX = UIDS_PER_NODE_MAX * (2 * UID_CHARS_MAX + 48)
PACE_WAIT_S = 4.0  # an agent waits for 5 s and then reports again
NAMED_MAX = 8  # nodes in a log line
NAME_BYTES = 8  # length of this process's name, drawn at its start
SAVE_AGAIN_S = 5.0  # while the disk is full
# Nodes that are there report within ten seconds of a start, and an agent that restarts within some
# more. Pods that were never captured cannot be reached by captured ones for so long.
DOUBT_S = 60.0


class EnrolmentService:
    """`addresses` gives those of all replicas, and is set where these can be known."""

    addresses: Callable[[], Sequence[Address]] = tuple

    def __init__(
        self, captured: CapturedSet, publisher: Publisher, door: Door, clock: Clock
    ) -> None:
        self._captured = captured
        self._publisher = publisher
        self._door = door
        self._clock = clock
        self._pace = Paces(CAPTURES)
        self._turns = Turns(REPORTING)
        self._replica = secrets.token_hex(NAME_BYTES)
        self._unsaved: set[str] = set()  # nodes whose last report is not on disk

    async def run(self) -> None:
        """Write down what the disk had no room for, as soon as it has: nodes may not be there to
        report again after a restart."""
        doubt_until_s = self._clock.monotonic_s() + DOUBT_S
        if self._captured.doubt.is_on:
            event(log, logging.WARNING, "captures.doubted", for_s=DOUBT_S)
        while True:
            await asyncio.sleep(SAVE_AGAIN_S)
            await self.save_again()
            if self._captured.doubt.is_on and self._clock.monotonic_s() >= doubt_until_s:
                await self.end_doubt()

    async def end_doubt(self) -> None:
        """Nodes that have not reported by now are taken for nodes that have captured nothing."""
        pods = self._publisher.believed()
        self._captured.doubt.end()
        await self._seal()
        self._publisher.refresh([each.uid for each in pods])
        silent = ",".join(sorted({each.node for each in pods})[:NAMED_MAX])
        level = logging.WARNING if pods else logging.INFO
        event(log, level, "captures.doubt_ended", pods=len(pods), silent=silent)

    async def save_again(self) -> None:
        for node in sorted(self._unsaved):
            async with self._turns.turn(node_tenant(node)):
                await self._save(node)
            if node in self._unsaved:
                return  # no room yet

    async def report(self, data: bytes, call: AdmittedCall, context: Context) -> bytes:
        """Take a report; answer once the new state is on its way to every stream."""
        pods = await self._parse(data, call, context)
        async with self._turns.turn(call.tenant):
            if self._captured.is_full:
                self._captured.keep_only(self._publisher.nodes())
            try:
                changed = self._captured.changes(call.caller.node, pods)
                await self._keep_pace(len(changed), call, context)
                changed = self._captured.take(call.caller.node, pods)
            except BadReport as exc:
                code = grpc.StatusCode.INVALID_ARGUMENT
                await self._door.refuse(
                    context, call, "report", code, str(exc), CallRefusal.BAD_REPORT
                )
            if changed or call.caller.node in self._unsaved:
                await self._save_and_tell(call.caller.node, changed)
        if self._captured.doubt.hear(call.caller.node):
            changed |= self._publisher.enrolled_on(call.caller.node)
        if changed:
            event(log, logging.INFO, "capture.reported", node=call.caller.node, pods=len(pods))
            await self._publisher.tell_captures(changed)
        answer = pb.ReportResponse(replica=self._replica, replica_addresses=self.addresses())
        return answer.SerializeToString()

    async def _parse(self, data: bytes, call: AdmittedCall, context: Context) -> Reported:
        try:
            request = pb.ReportRequest.FromString(data)
            pods = _pods_of(request)
        except (DecodeError, WireError):
            code = grpc.StatusCode.INVALID_ARGUMENT
            await self._door.refuse(context, call, "report", code, "not a report", CallRefusal.WIRE)
        if request.node != call.caller.node:
            code = grpc.StatusCode.PERMISSION_DENIED
            await self._door.refuse(
                context,
                call,
                "report",
                code,
                "the token is of another node",
                CallRefusal.OTHER_NODE,
                claimed=request.node,
            )
        return pods

    async def _keep_pace(self, changes: int, call: AdmittedCall, context: Context) -> None:
        now_s = self._clock.monotonic_s()
        wait_s = self._pace.wait_s(call.tenant, now_s)
        if wait_s > PACE_WAIT_S:
            await self._door.exhausted(context, call, "report", CallRefusal.CAPTURES_RATE)
        self._pace.spend(call.tenant, changes, now_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _save_and_tell(self, node: str, changed: frozenset[str]) -> None:
        """Save, and tell what changed even if the call ends meanwhile, as with its agent's death:
        the next agent reports the same, which is no news then."""
        try:
            await self._save(node)
        except asyncio.CancelledError:
            self._unsaved.add(node)
            self._publisher.refresh(changed)
            raise

    async def _save(self, node: str) -> None:
        """A disk that is full keeps no pod out of the mesh: only a restart reads the file, and
        then the broken seal says that there is more than the files tell."""
        try:
            await asyncio.to_thread(self._captured.save, node)
        except OSError as exc:
            if not self._unsaved:
                event(log, logging.ERROR, "capture.not_saved", node=node, error=exc)
            self._unsaved.add(node)
            await self._seal()
            return
        was_unsaved = node in self._unsaved
        self._unsaved.discard(node)
        if was_unsaved and not self._unsaved:
            event(log, logging.INFO, "capture.saved")
            await self._seal()

    async def _seal(self) -> None:
        try:
            await asyncio.to_thread(self._captured.seal, not self._unsaved)
        except MeshError as exc:
            event(log, logging.ERROR, "captures.not_sealed", error=exc)


def _pods_of(request: pb.ReportRequest) -> Reported:
    """The captured pods with their addresses, which count for captured pods only."""
    placed = {
        each.uid: tuple(address_from_wire(raw) for raw in each.addresses)
        for each in request.captured_pods
    }
    return {uid: placed.get(uid, ()) for uid in request.captured_uids}
