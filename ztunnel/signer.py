"""Asks the certificate service to sign (Istio's CSR service over gRPC). It never sees a key."""

from __future__ import annotations

from typing import Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from control.kit.errors import ControlError
from control.model.identity import SpiffeId
from control.wire import certificates_pb2 as pb
from control.wire.types import CREATE_CERTIFICATE_METHOD
from ztunnel.channel import call_metadata, open_channel, roots_pem
from ztunnel.config import Config

SIGN_TIMEOUT_S = 10.0


class SigningFailed(ControlError):
    reason = "signing_failed"


class Signer(Protocol):
    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        """The chain, leaf first, roots last; ControlError when there is none."""

    async def close(self) -> None: ...


class CaClient:
    """One channel, which reconnects by itself; a new one when the trusted roots were replaced."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._channel: grpc.aio.Channel | None = None
        self._pem: bytes | None = None

    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        config = self._config
        request = pb.IstioCertificateRequest(csr=csr_pem, validity_duration=int(ttl_s))
        request.metadata.update({"ImpersonatedIdentity": str(identity)})
        metadata = call_metadata(config.token, config.cluster_id)
        channel = await self._current()
        call = channel.unary_unary(CREATE_CERTIFICATE_METHOD, bytes, bytes)
        try:
            answer = await call(
                request.SerializeToString(), timeout=SIGN_TIMEOUT_S, metadata=metadata
            )
            response = pb.IstioCertificateResponse.FromString(answer)
        except grpc.aio.AioRpcError as exc:
            raise SigningFailed(f"{exc.code().name}: {exc.details()}") from exc
        except DecodeError as exc:
            raise SigningFailed("the answer is not a certificate response") from exc
        return list(response.cert_chain)

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def _current(self) -> grpc.aio.Channel:
        pem = roots_pem(self._config.ca_root)
        if self._channel is not None and pem != self._pem:
            await self.close()
        if self._channel is None:
            self._channel = open_channel(self._config.ca, pem, self._config.ca_name)
            self._pem = pem
        return self._channel
