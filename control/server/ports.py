"""Table of the gRPC methods, their limits, and the certificate that the port shows."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import grpc

from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.log import event
from control.server.ca.authorities import Authorities
from control.server.ca.issuer import ServingCertificate, issue_serving
from control.server.ca.requests import CSR_MESSAGE_BYTES_MAX, CertificateService
from control.server.callers.door import AdmittedCall, Context, Door
from control.server.callers.refusals import CallRefusal
from control.server.front.meter import LARGE_BYTES, REQUEST_BYTES_MAX, STREAMS_MAX
from control.server.xds.reports import REPORT_BYTES_MAX, EnrolmentService
from control.server.xds.streams import DeltaService
from control.wire.types import CREATE_CERTIFICATE_METHOD, DELTA_METHOD, REPORT_METHOD

log = logging.getLogger("server")

SERVING_TTL = timedelta(hours=24)
# From a call's first header to the end of its only message.
REQUEST_S = 10.0
PENDING_MAX, PENDING_S = 16384, 120
IDLE_S = 300  # without a call; the next one connects again
_OPTIONS = [
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # bounded by RESPONSE_BYTES_MAX of the session
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.max_metadata_size", 16 * 1024),  # a token has 8 KiB at most
    # Calls that our loop has not taken up yet: gRPC would cancel some of more than 1,000, and each
    # after 30 s. A replica that starts meets every node of the mesh.
    ("grpc.server.max_pending_requests", PENDING_MAX),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
    ("grpc.server_max_unrequested_time_in_server", PENDING_S),
    # A stream that nobody reads holds one window, and no window grows by itself.
    ("grpc.http2.lookahead_bytes", LARGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
    # A message is what its length says: a compressed kilobyte could become a gigabyte.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_connection_idle_ms", IDLE_S * 1000),
    # Clients ping every 30 s (wire.md 2.3) and may ping more eagerly; that is no attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


class ServingCertificates:
    """The certificate of every port, renewed at half of its life: by then nodes know the roots of a
    CA that is new."""

    def __init__(self, authorities: Authorities, names: Sequence[str], clock: Clock) -> None:
        self._authorities = authorities
        self._names = names
        self._clock = clock
        self._current = self._issue()

    def current(self) -> ServingCertificate:
        if not self._current.not_before <= self._clock.now() < self._current.renew_at:
            self._current = self._issue()
        return self._current

    def _issue(self) -> ServingCertificate:
        made = issue_serving(self._authorities.current, self._names, SERVING_TTL, self._clock.now())
        event(log, logging.INFO, "serving.issued", not_after=made.not_after.isoformat())
        return made


class TlsContexts:
    """The context of new connections, replaced with the certificate."""

    def __init__(self, certificates: ServingCertificates) -> None:
        self._certificates = certificates
        self._made_of: ServingCertificate | None = None
        self._context: ssl.SSLContext

    def current(self) -> ssl.SSLContext:
        certificate = self._certificates.current()
        if certificate is not self._made_of:
            self._context = _context(certificate)
            self._made_of = certificate
        return self._context


def _context(certificate: ServingCertificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # connections live long; tickets would only cost
    context.set_alpn_protocols(["h2"])
    # `ssl` reads keys from files only: this one is in memory, and gone when it is closed.
    with os.fdopen(os.memfd_create("serving"), "wb") as file:
        file.write(certificate.key_pem + certificate.chain_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


Answer: TypeAlias = Callable[[bytes, AdmittedCall, Context], Awaitable[bytes]]


def unary(
    door: Door, method: str, bytes_max: int, answer: Answer, *, nodes_only: bool = False
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
    """One message in, one out. The message is read when the call was let in, not before."""

    async def handle(requests: AsyncIterator[bytes], context: Context) -> bytes:
        async with door.admitted(context, method, nodes_only=nodes_only) as call:
            try:
                async with asyncio.timeout(REQUEST_S):
                    data = await anext(requests)
            except (TimeoutError, StopAsyncIteration):
                code = grpc.StatusCode.DEADLINE_EXCEEDED
                await door.refuse(
                    context, call, method, code, "no request came", CallRefusal.SILENT
                )
            call.taken()
            if len(data) > bytes_max:
                code = grpc.StatusCode.INVALID_ARGUMENT
                await door.refuse(
                    context, call, method, code, "too large", CallRefusal.MESSAGE_TOO_LARGE
                )
            return await answer(data, call, context)

    return handle


def make_server(
    socket_path: str,
    door: Door,
    delta: DeltaService,
    csr: CertificateService,
    enrolment: EnrolmentService,
) -> grpc.aio.Server:
    """The gRPC server behind the front, not started."""
    server = grpc.aio.server(options=_OPTIONS)
    for path, handler in handlers(door, delta, csr, enrolment).items():
        service, _, method = path[1:].partition("/")
        table = grpc.method_handlers_generic_handler(service, {method: handler})
        server.add_generic_rpc_handlers((table,))
    if server.add_insecure_port(f"unix:{socket_path}") == 0:
        raise ConfigError(f"gRPC cannot listen on {socket_path}")
    return server


def handlers(
    door: Door, delta: DeltaService, csr: CertificateService, enrolment: EnrolmentService
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """By method path.

    All methods are streams to gRPC, even those with one message: it would read the message of any
    other before we are asked who calls.
    """
    create = unary(door, "csr", CSR_MESSAGE_BYTES_MAX, csr.create)
    report = unary(door, "report", REPORT_BYTES_MAX, enrolment.report, nodes_only=True)
    # No (de)serialisers: messages pass as bytes, so one encoding serves every client.
    return {
        DELTA_METHOD: grpc.stream_stream_rpc_method_handler(delta.stream),
        CREATE_CERTIFICATE_METHOD: grpc.stream_unary_rpc_method_handler(create),
        REPORT_METHOD: grpc.stream_unary_rpc_method_handler(report),
    }
