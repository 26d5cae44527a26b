"""CAs of tests: the one in force, and chains as companies have them."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.kit.clock import Clock
from control.server.ca.authorities import Authorities
from control.server.ca.authority import Authority, SigningKey, signing_hash
from control.server.metrics import Metrics


def held(authority: Authority, clock: Clock, metrics: Metrics | None = None) -> Authorities:
    return Authorities(
        authority, metrics=metrics or Metrics(), clock=clock, carried=timedelta(hours=24)
    )


class CompanyCa:
    """A CA certificate and its key; `below` makes one that it signs."""

    def __init__(
        self,
        name: str,
        now: datetime,
        above: CompanyCa | None = None,
        *,
        key: SigningKey | None = None,
        is_ca: bool = True,
        paths: int | None = None,
        signs: bool = True,
        begins: timedelta = timedelta(0),
        lasts: timedelta = timedelta(days=365),
    ) -> None:
        self.key: SigningKey = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = above or self
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + begins + lasts)
            .add_extension(x509.BasicConstraints(is_ca, paths if is_ca else None), critical=True)
            .add_extension(usage, critical=True)
            .sign(signer.key, signing_hash(signer.key))
        )
