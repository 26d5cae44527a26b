"""Asks the certificate service to sign (Istio's CSR service over gRPC). Never sees a key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from control.kit.errors import ControlError
from control.model.identity import SpiffeId
from control.wire import certificates_pb2 as pb
from control.wire.channel import open_channel
from control.wire.types import CREATE_CERTIFICATE_METHOD
from ztunnel.access import call_metadata, roots_pem
from ztunnel.config import LiteralToken

SIGN_TIMEOUT_S = 10.0
# A replica that died with its node, or is being replaced, leaves a link that says nothing. The
# second try goes over a new link, which another replica may have; signing twice does no harm.
FIRST_TRY_S = 2.0
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class SignerAddress(Protocol):
    """Settings of the way to the certificate service."""

    @property
    def ca(self) -> str: ...

    @property
    def ca_root(self) -> str: ...

    @property
    def ca_name(self) -> str: ...

    @property
    def token(self) -> Path | LiteralToken | None: ...

    @property
    def cluster_id(self) -> str: ...


class SigningFailed(ControlError):
    reason = "signing_failed"


class _Silent(SigningFailed):
    """No answer in time."""


class Signer(Protocol):
    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        """Certificate chain, leaf first and roots last; ControlError: there is none."""

    def reconnect(self) -> None:
        """The control plane can be reached again: do not sit out the pause of a broken link."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Link:
    """A channel and the number of calls under way on it, which closing it would cancel."""

    channel: grpc.aio.Channel
    pem: bytes | None
    calls: int = 0


class CaClient:
    """Client with one channel. New trusted roots make a new one, and so does a broken link: the
    pauses between two tries are the caller's."""

    def __init__(self, config: SignerAddress) -> None:
        self._config = config
        self._link: _Link | None = None
        self._stale = False

    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        try:
            return await self._try(identity, csr_pem, ttl_s, FIRST_TRY_S)
        except _Silent:
            return await self._try(identity, csr_pem, ttl_s, SIGN_TIMEOUT_S - FIRST_TRY_S)

    async def _try(
        self, identity: SpiffeId, csr_pem: str, ttl_s: float, within_s: float
    ) -> list[str]:
        config = self._config
        request = pb.IstioCertificateRequest(csr=csr_pem, validity_duration=int(ttl_s))
        request.metadata.update({"ImpersonatedIdentity": str(identity)})
        metadata = call_metadata(config.token, config.cluster_id)
        link = await self._current()
        call = link.channel.unary_unary(CREATE_CERTIFICATE_METHOD, bytes, bytes)
        link.calls += 1
        try:
            answer = await call(request.SerializeToString(), timeout=within_s, metadata=metadata)
            response = pb.IstioCertificateResponse.FromString(answer)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _BROKEN and link is self._link:
                self._stale = True  # the next try must not find gRPC in a pause of its own
            is_silent = exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            kind = _Silent if is_silent else SigningFailed
            raise kind(f"{exc.code().name}: {exc.details()}") from exc
        except DecodeError as exc:
            raise SigningFailed("the answer is not a certificate response") from exc
        finally:
            link.calls -= 1
            await self._close_if_done(link)
        return list(response.cert_chain)

    def reconnect(self) -> None:
        self._stale = True

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.channel.close(None)

    async def _current(self) -> _Link:
        pem = roots_pem(self._config.ca_root)
        old = self._link
        if old is not None and old.pem == pem and not self._stale:
            return old
        self._stale = False
        channel = open_channel(self._config.ca, pem, self._config.ca_name)
        self._link = _Link(channel, pem)
        if old is not None:
            await self._close_if_done(old)
        return self._link

    async def _close_if_done(self, link: _Link) -> None:
        if link is not self._link and link.calls == 0:
            await link.channel.close(None)
