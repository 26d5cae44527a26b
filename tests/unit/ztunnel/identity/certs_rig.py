"""Shared parts of the tests of certs and keeping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.engine.meshes import spiffe

NOW = datetime(2026, 1, 1, tzinfo=UTC)


WEB, API = spiffe("web"), spiffe("api")


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Authority:
    """Signer that returns the chain it was given, right or wrong."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        self.root = self._sign(name, name, self.key.public_key(), None, NOW, 3650)

    def _sign(
        self,
        issuer: x509.Name,
        subject: x509.Name,
        key: Any,
        uris: list[str] | None,
        start: datetime,
        days: float,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
        )
        if uris is not None:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def chain(
        self, key: Any, *uris: str, start: datetime = NOW, days: float = 1, root: str | None = None
    ) -> list[str]:
        empty = x509.Name([])
        leaf = self._sign(self.root.subject, empty, key, list(uris), start, days)
        return [pem(leaf), pem(self.root) if root is None else root]


CA = Authority()
