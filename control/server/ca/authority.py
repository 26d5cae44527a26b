"""The CA: its key, its own certificate, and the roots that lead to it. Pure.

A self-signed CA of our own has only a root. An operator's CA is often an intermediate of a company
root; then its certificates go with every leaf, and the roots are a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

ROOT_LIFETIME = timedelta(days=3650)
CLOCK_SKEW = timedelta(minutes=2)  # a node's clock may be this far behind ours

# Errors of a certificate or a request that is none; not all of them are ValueErrors.
UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """`intermediates`: certificates between the leaves and `root`, that of `key` first; none when
    `root` is it. `other_roots` are trusted too: those before and after a change of the root."""

    key: SigningKey = field(compare=False)  # it is that of the first certificate
    root: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()
    other_roots: tuple[x509.Certificate, ...] = ()

    @property
    def issuer(self) -> x509.Certificate:
        """The certificate that the key belongs to."""
        return self.intermediates[0] if self.intermediates else self.root

    @property
    def ends_at(self) -> datetime:
        """The first end in the chain: no leaf is good after it."""
        return min(each.not_valid_after_utc for each in (*self.intermediates, self.root))

    @property
    def root_pem(self) -> str:
        """Every root, in PEM."""
        return "".join(map(pem_of, (self.root, *self.other_roots)))

    @property
    def chain_pem(self) -> list[str]:
        """All that goes with a leaf: the intermediates, and last the roots."""
        return [*map(pem_of, self.intermediates), self.root_pem]

    def beside(self, roots: tuple[x509.Certificate, ...], now: datetime) -> Authority:
        """The same, with these roots trusted too until they end."""
        known = (self.root, *self.other_roots)
        more = (each for each in roots if each not in known and each.not_valid_after_utc > now)
        return replace(self, other_roots=(*self.other_roots, *dict.fromkeys(more)))

    def __repr__(self) -> str:
        return f"Authority(serial={self.issuer.serial_number:x})"


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem_of(key: SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signing_hash(key: SigningKey) -> hashes.SHA256 | None:
    """Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def new_authority(trust_domain: str, now: datetime) -> Authority:
    """A key and a root of our own."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(key, _self_signed(key, trust_domain, now))


def _self_signed(
    key: ec.EllipticCurvePrivateKey, trust_domain: str, now: datetime
) -> x509.Certificate:
    # A common name is for people only and has at most 64 letters.
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64])])
    key_usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
