"""The secrets that Envoy is given, and what one of its streams asks for. Pure: requests in,
responses out.

There are two: the certificate with its key, and the roots. A stream has those that it names, each
again when it has changed. A name that is not ours is answered with its absence.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.wire import discovery_pb2 as pb
from control.wire import secret_pb2
from control.wire.envoy_bootstrap import CERTIFICATE_SECRET, ROOTS_SECRET
from control.wire.types import SECRET_TYPE
from ztunnel.identity.csr import Issued

NAMES_MAX = 16  # one stream asks for; Envoy asks for one


@dataclass(frozen=True, slots=True)
class Secret:
    """`body` holds a private key: it goes into no log line and no repr."""

    version: str
    body: bytes

    def __repr__(self) -> str:
        return f"Secret({self.version})"


def secrets_of(issued: Issued) -> dict[str, Secret]:
    """Both secrets, by name. The version is a sum: roots that stay are not sent again."""
    certificate = secret_pb2.Secret(name=CERTIFICATE_SECRET)
    certificate.tls_certificate.certificate_chain.inline_bytes = "".join(issued.chain_pem).encode()
    certificate.tls_certificate.private_key.inline_bytes = issued.key_pem.encode()
    roots = secret_pb2.Secret(name=ROOTS_SECRET)
    roots.validation_context.trusted_ca.inline_bytes = issued.roots_pem.encode()
    made = {each.name: each.SerializeToString() for each in (certificate, roots)}
    return {
        name: Secret(hashlib.blake2b(body, digest_size=8).hexdigest(), body)
        for name, body in made.items()
    }


class SecretStream:
    """One stream: `receive` each request, and after that, or after a change, send `answer`."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._has: dict[str, str] = {}
        self._owed: set[str] = set()  # names that were asked for and have had no answer
        self._nonces = itertools.count(1)

    def receive(self, data: bytes) -> str:
        """Take a request; Envoy's words, if it refuses what it was sent. WireError: it breaks the
        protocol."""
        try:
            request = pb.DeltaDiscoveryRequest.FromString(data)
        except DecodeError as exc:
            raise WireError("not a discovery request") from exc
        if request.type_url not in ("", SECRET_TYPE):
            raise WireError(f"only secrets are served here, not {request.type_url}")
        for name in request.resource_names_unsubscribe:
            self._wanted.discard(name)
            self._owed.discard(name)
            self._has.pop(name, None)
        asked = set(request.resource_names_subscribe)
        if len(self._wanted | asked) > NAMES_MAX:
            raise WireError("too many names")
        self._wanted |= asked
        self._owed |= asked
        if not request.response_nonce:
            self._has.update(request.initial_resource_versions)
        return str(request.error_detail.message) if request.HasField("error_detail") else ""

    def answer(self, secrets: dict[str, Secret]) -> bytes | None:
        """The response that is due; None: there is none. Before the first certificate there are no
        secrets, and nobody is told that they are absent."""
        if not secrets:
            return None
        due = [
            name
            for name in sorted(self._wanted)
            if name in secrets
            and (name in self._owed or self._has.get(name) != secrets[name].version)
        ]
        absent = sorted(self._owed - secrets.keys())
        if not due and not absent:
            return None
        response = pb.DeltaDiscoveryResponse(
            type_url=SECRET_TYPE, nonce=str(next(self._nonces)), removed_resources=absent
        )
        for name in due:
            secret = secrets[name]
            one = response.resources.add(name=name, version=secret.version)
            one.resource.type_url, one.resource.value = SECRET_TYPE, secret.body
            self._has[name] = secret.version
        self._owed.clear()
        return response.SerializeToString()
