"""One TLS port for every gRPC method: method tables, limits, and the certificate it shows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import grpc

from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.log import event
from control.server.ca.issuer import ServingCertificate, issue_serving
from control.server.ca.keys import Authority
from control.server.ca.requests import CertificateService
from control.server.xds.reports import EnrolmentService
from control.server.xds.streams import STREAMS_MAX, DeltaService
from control.wire.types import CREATE_CERTIFICATE_METHOD, DELTA_METHOD, REPORT_METHOD

log = logging.getLogger("server")

# A returning client lists everything it holds: 100,000 names with versions are some 8 MiB.
REQUEST_BYTES_MAX = 32 * 1024 * 1024
CALLS_MAX = STREAMS_MAX + 1024  # every stream, and certificate requests of many nodes at once
SERVING_TTL = timedelta(hours=24)
_OPTIONS = [
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", -1),  # bounded by RESPONSE_BYTES_MAX of the session
    # Two control planes on one port would serve half of the nodes each, with different content.
    ("grpc.so_reuseport", 0),
    # Clients ping every 30 s (wire.md 2.3) and may ping more eagerly; that is no attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


class ServingCertificates:
    """The certificate of every port, made anew at half of its life."""

    def __init__(self, authority: Authority, names: Sequence[str], clock: Clock) -> None:
        self._authority = authority
        self._names = names
        self._clock = clock
        self._current = self._issue()

    def current(self) -> ServingCertificate:
        if self._clock.now() >= self._current.renew_at:
            self._current = self._issue()
        return self._current

    def _issue(self) -> ServingCertificate:
        made = issue_serving(self._authority, self._names, SERVING_TTL, self._clock.now())
        event(log, logging.INFO, "serving.issued", not_after=made.not_after.isoformat())
        return made


class PortCertificate:
    """One port's view: it remembers the certificate that gRPC was given last, port by port."""

    def __init__(self, certificates: ServingCertificates) -> None:
        self._certificates = certificates
        self._given = certificates.current()

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            self.fetch,  # type: ignore[arg-type]  # gRPC takes None as "no news", its stubs do not
            require_client_authentication=False,
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake; None: keep what you have."""
        if (current := self._certificates.current()) is self._given:
            return None
        self._given = current
        return _configuration(current)


def _configuration(made: ServingCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(made.key_pem, made.chain_pem)])


def make_server(
    listen: Sequence[str],
    certificates: ServingCertificates,
    delta: DeltaService,
    csr: CertificateService,
    enrolment: EnrolmentService,
) -> tuple[grpc.aio.Server, list[int]]:
    """The server, not started, and the port of each listener."""
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
    # No (de)serialisers: messages pass as bytes, so one encoding serves every client.
    methods = {
        DELTA_METHOD: grpc.stream_stream_rpc_method_handler(delta.stream),
        CREATE_CERTIFICATE_METHOD: grpc.unary_unary_rpc_method_handler(csr.create),
        REPORT_METHOD: grpc.unary_unary_rpc_method_handler(enrolment.report),
    }
    for path, handler in methods.items():
        service, _, method = path[1:].partition("/")
        table = grpc.method_handlers_generic_handler(service, {method: handler})
        server.add_generic_rpc_handlers((table,))
    ports = []
    for where in listen:
        try:
            port = server.add_secure_port(where, PortCertificate(certificates).credentials())
        except RuntimeError as exc:
            raise ConfigError(f"cannot listen on {where}: {exc}") from exc
        if port == 0:
            raise ConfigError(f"cannot listen on {where}")
        ports.append(port)
    return server, ports
