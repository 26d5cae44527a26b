"""Keys, signing requests, and the check of the signer's answer. Pure but for making a key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.kit.errors import ControlError
from control.model.identity import SpiffeId
from control.wire.x509 import spiffe_ids

CHAIN_MAX = 16  # a leaf, a few intermediates, a bundle of roots
PEM_CHARS_MAX = 512 * 1024


class CertificateInvalid(ControlError):
    """The signer's answer cannot be used; the message says why."""

    reason = "certificate_invalid"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in force. The key never leaves memory and never shows in a repr."""

    identity: SpiffeId
    key_pem: str = field(repr=False)
    chain_pem: tuple[str, ...]  # leaf first, then intermediates
    roots_pem: str
    serial: int
    not_before: datetime
    not_after: datetime
    received: datetime  # by our clock; a signer may date back, as far as it likes


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(key: ec.EllipticCurvePrivateKey, identity: SpiffeId) -> str:
    """PKCS#10 in PEM: no subject, one URI name."""
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(name, critical=True).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def check_chain(
    identity: SpiffeId,
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[str],
    now: datetime,
) -> Issued:
    """Check `chain`, which the signer sent: leaf, intermediates, and last a bundle of roots.

    CertificateInvalid unless the leaf is for exactly this identity and key, is valid now, and
    leads to one of the roots.
    """
    if not 2 <= len(chain) <= CHAIN_MAX or sum(map(len, chain)) > PEM_CHARS_MAX:
        raise CertificateInvalid(f"a chain of {len(chain)} parts: a leaf and a root are needed")
    try:
        before = [x509.load_pem_x509_certificates(each.encode()) for each in chain[:-1]]
        roots = x509.load_pem_x509_certificates(chain[-1].encode())
    except ValueError as exc:
        raise CertificateInvalid(f"not PEM certificates: {exc}") from exc
    leaf, *others = (each for part in before for each in part)
    # istiod sends each certificate as a part of its own, roots of a bundle included.
    intermediates = [each for each in others if not _issued_by(each, each)]
    roots += [each for each in others if _issued_by(each, each) and each not in roots]
    if spiffe_ids(leaf) != (identity,):
        raise CertificateInvalid(f"the leaf is not for {identity}")
    if leaf.public_key() != key.public_key():
        raise CertificateInvalid("the leaf is for another key")
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise CertificateInvalid(
            f"the leaf is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc}"
        )
    _check_path(leaf, intermediates, roots)
    key_bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Issued(
        identity=identity,
        key_pem=key_bytes.decode(),
        chain_pem=tuple(_pem(each) for each in (leaf, *intermediates)),
        roots_pem="".join(map(_pem, roots)),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        received=now,
    )


def _check_path(
    leaf: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    roots: Sequence[x509.Certificate],
) -> None:
    current = leaf
    for issuer in intermediates:
        if not _issued_by(current, issuer):
            raise CertificateInvalid("the chain is broken")
        current = issuer
    if current not in roots and not any(_issued_by(current, root) for root in roots):
        raise CertificateInvalid("the chain leads to none of the roots")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
