"""Frames between supervisor and worker, with file descriptors beside them (contract C5).

A Unix socketpair, SOCK_STREAM. A frame is a u32 payload length (big-endian), a u8 kind, a u8 number
of descriptors, and the payload; the descriptors ride with its first byte. Payloads are JSON objects
unless said otherwise.

    supervisor → worker
    CONFIG              first of all: {worker, trust_domain, cluster_id, network, node, drain_s,
                        log_level, log_format, access_log, spin_us, fixed_ports, direct}
    RESOURCES           binary: the entries of ztunnel/mesh/entries.py, each u8 op, u16 name length,
                        name, u32 body length, body (a protobuf `Address` or `Authorization` of
                        Istio). Bodies are indexed by name, and decoded when first used.
    GENERATION          {generation}, after the RESOURCES it is for (C9)
    POD_ADD             {uid, name, namespace, service_account} and four descriptors: network
                        namespace, outbound, plaintext inbound and HBONE inbound listener
    POD_DELETE          {uid}
    CERTIFICATE         {identity, key_pem, chain_pem: [...], roots_pem}
    CERTIFICATE_FAILED  {identity, reason}
    CERTIFICATE_FORGOTTEN  {identity}: its last pod has left; drop the key and all
    QUERY               {id, what: "connections" | "metrics" | "pools" | "names"}
    LOG_LEVEL           {level}
    UNANSWERED          {pod, names: [...], reason}: nobody will answer these names to the pod
    LEAVE               {}: go on, but have peers open their tunnels elsewhere; say IDLE
    DRAIN               {deadline_s}: accept nothing more, and end by then

    worker → supervisor
    READY               {}
    NEED_CERTIFICATE    {identity, waiting: bool}
    NEED_ADDRESSES      {pod, names: [...], spare: bool}: ask the control plane; KNOWN entries are
                        the answer. Nobody waits for spare ones.
    ANSWER              {id, more: bool, ...}, in pieces: mappings and lists of an answer are joined
                        (merge_answer) until one says that there is no more. For metrics {counters:
                        [[name, {label: value}, number]], gauges}: of the label sets only those that
                        have changed since the last answer, each with its whole count
    POD_READY           {uid}: its listeners are registered
    IDLE                {idle: bool}, after LEAVE and at each change: nothing is open
    BEAT                {}, each second: its loop turns
    DRAINED             {}

    both ways
    DIRECT              one line of direct.sock (C9)

A worker writes its access log to standard error by itself. The parser holds no socket; `IpcSocket`
is the thin shell around it, for an epoll worker and the asyncio supervisor alike. A received
descriptor belongs to the code that takes the frame; a sent one is duplicated when it is queued.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from control.kit.descriptors import close_all, receive_message
from control.kit.errors import WireError

# Above one resource of the largest allowed size and a chunk of ordinary ones.
FRAME_BYTES_MAX = 16 * 1024 * 1024
DESCRIPTORS_MAX = 4  # in one frame: netns and three listeners
# Queue for a worker that does not read: a snapshot of some 100,000 workloads. A worker that lets
# more pile up is stuck and gets replaced.
OUTGOING_BYTES_MAX = 64 * 1024 * 1024
# Size of one read: enough for a chunk of resources, and a turn stays short.
READ_BYTES = 128 * 1024
# Descriptors that arrived before their frame was whole: no honest peer runs ahead further.
_WAITING_DESCRIPTORS_MAX = 64

_HEAD = struct.Struct("!IBB")


class FrameKind(IntEnum):
    # supervisor → worker
    CONFIG = 1
    RESOURCES = 2
    POD_ADD = 3
    POD_DELETE = 4
    CERTIFICATE = 5
    CERTIFICATE_FAILED = 6
    QUERY = 7
    LOG_LEVEL = 8
    DRAIN = 9
    GENERATION = 10
    CERTIFICATE_FORGOTTEN = 11
    LEAVE = 12
    UNANSWERED = 13
    # worker → supervisor
    READY = 64
    NEED_CERTIFICATE = 65
    ANSWER = 66
    POD_READY = 67
    DRAINED = 68
    IDLE = 69
    BEAT = 70
    NEED_ADDRESSES = 71
    # both ways: one line of the agent's direct.sock
    DIRECT = 96


class IpcOverflow(WireError):
    reason = "ipc_overflow"


class FrameTooLarge(WireError):
    """A payload that no frame may carry: the sender's bug, and nothing was sent."""

    reason = "frame_too_large"


@dataclass(frozen=True, slots=True)
class Frame:
    kind: FrameKind
    payload: bytes = b""
    descriptors: tuple[int, ...] = ()

    def json(self) -> dict[str, Any]:
        """Payload as a JSON object; WireError: it is none."""
        try:
            value = json.loads(self.payload or b"{}")
        except ValueError as exc:
            raise WireError(f"{self.kind.name}: not JSON") from exc
        if not isinstance(value, dict):
            raise WireError(f"{self.kind.name}: not a JSON object")
        return value

    def close(self) -> None:
        """Close the descriptors, for a receiver that has no use for them."""
        close_all(self.descriptors)


def encode_frame(kind: FrameKind, payload: bytes, descriptors: int = 0) -> bytes:
    if len(payload) > FRAME_BYTES_MAX or descriptors > DESCRIPTORS_MAX:
        raise FrameTooLarge(f"{kind.name}: {len(payload)} bytes, {descriptors} descriptors")
    return _HEAD.pack(len(payload), kind, descriptors) + payload


# json.dumps makes an encoder each time, when it is asked for anything but the default.
_text_of = json.JSONEncoder(separators=(",", ":")).encode


def encode_json(value: dict[str, Any]) -> bytes:
    return _text_of(value).encode()


def merge_answer(into: dict[str, Any], piece: dict[str, Any]) -> None:
    """Join a piece to those before it: lists are appended, mappings joined, the rest replaced."""
    for key, value in piece.items():
        there = into.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merge_answer(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            there += value
        else:
            into[key] = value


@dataclass(slots=True)
class FrameParser:
    """Bytes and descriptors in, whole frames out; the rest waits for more."""

    _buffer: bytearray = field(default_factory=bytearray)
    _descriptors: deque[int] = field(default_factory=deque)

    def feed(self, data: bytes, descriptors: Iterable[int] = ()) -> list[Frame]:
        """Raises WireError on nonsense; then the connection is of no further use."""
        self._buffer += data
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > _WAITING_DESCRIPTORS_MAX:
            raise WireError("descriptors without frames")
        frames: list[Frame] = []
        offset = 0
        while (frame := self._next(offset)) is not None:
            frames.append(frame)
            offset += _HEAD.size + len(frame.payload)
        del self._buffer[:offset]
        return frames

    def _next(self, offset: int) -> Frame | None:
        if len(self._buffer) - offset < _HEAD.size:
            return None
        length, number, count = _HEAD.unpack_from(self._buffer, offset)
        if length > FRAME_BYTES_MAX or count > DESCRIPTORS_MAX:
            raise WireError(f"a frame of {length} bytes and {count} descriptors")
        try:
            kind = FrameKind(number)
        except ValueError as exc:
            raise WireError(f"a frame of unknown kind {number}") from exc
        start = offset + _HEAD.size
        if len(self._buffer) - start < length:
            return None
        if len(self._descriptors) < count:
            raise WireError(f"{kind.name}: {count} descriptors promised, fewer came")
        taken = tuple(self._descriptors.popleft() for _ in range(count))
        return Frame(kind, bytes(self._buffer[start : start + length]), taken)

    def close(self) -> None:
        """Close descriptors nobody took."""
        close_all(self._descriptors)
        self._descriptors.clear()


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    descriptors: tuple[int, ...]


class IpcSocket:
    """One end of the pair, never blocking. The owner watches `fileno()` for reading, and for
    writing while `wants_write`, and then calls `receive()` and `flush()`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._parser = FrameParser()
        self._outgoing: deque[_Outgoing] = deque()
        self.pending_bytes = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._outgoing)

    def send_json(
        self, kind: FrameKind, value: dict[str, Any], descriptors: Sequence[int] = ()
    ) -> None:
        self.send(kind, encode_json(value), descriptors)

    def send(self, kind: FrameKind, payload: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Queue a frame and write what the kernel takes now.

        IpcOverflow when the peer has not read for too long; OSError when it is gone.
        """
        data = encode_frame(kind, payload, len(descriptors))
        if self.pending_bytes + len(data) > OUTGOING_BYTES_MAX:
            raise IpcOverflow(f"{self.pending_bytes} bytes wait for a peer that does not read")
        copies = tuple(os.dup(each) for each in descriptors)
        self._outgoing.append(_Outgoing(memoryview(data), copies))
        self.pending_bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Write until everything is gone or the kernel's buffer is full. OSError: peer gone."""
        while self._outgoing:
            item = self._outgoing[0]
            try:
                sent = self._write(item)
            except BlockingIOError:
                return
            close_all(item.descriptors)
            item.descriptors = ()
            self.pending_bytes -= sent
            item.data = item.data[sent:]
            if not item.data:
                self._outgoing.popleft()

    def _write(self, item: _Outgoing) -> int:
        if not item.descriptors:
            return self._socket.send(item.data, socket.MSG_NOSIGNAL)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", item.descriptors))
        return self._socket.sendmsg([item.data], [rights], socket.MSG_NOSIGNAL)

    def receive(self) -> list[Frame] | None:
        """Frames of one read; an empty list when there is nothing; None: the peer has closed."""
        try:
            data, received = receive_message(self._socket, READ_BYTES, DESCRIPTORS_MAX)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        if not data:
            return None
        return self._parser.feed(data, received)

    def finish(self) -> None:
        """Nothing more will be sent: the peer sees the end."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for item in self._outgoing:
            close_all(item.descriptors)
        self._outgoing.clear()
        self.pending_bytes = 0
        self._parser.close()
        self._socket.close()
