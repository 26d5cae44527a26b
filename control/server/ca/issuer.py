"""Checks certificate requests and builds leaves. Pure: bytes and time in, bytes or refusal out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.kit.errors import PeerError
from control.model.identity import SpiffeId, parse_spiffe_id
from control.server.ca.authority import (
    CLOCK_SKEW,
    UNREADABLE,
    Authority,
    pem_of,
    signing_hash,
)
from control.server.callers.refusals import CallRefusal

CSR_BYTES_MAX = 16 * 1024
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192  # verifying costs grow with the square
# Everybody's is 65537; one as long as the modulus makes verifying as dear as signing (100 ms).
RSA_EXPONENT_MAX = 2**32
TTL_DEFAULT = timedelta(hours=24)
TTL_MIN = timedelta(seconds=10)

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Refused(PeerError):
    """A request that gets no certificate."""

    reason = "refused"

    def __init__(self, why: CallRefusal) -> None:
        super().__init__(why.word)
        self.why = why


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request whose signature, key and names were checked."""

    public_key: PublicKey
    identity: SpiffeId


def check_request(csr_pem: str, impersonated: str, trust_domain: str) -> CheckedRequest:
    """Check the signature, the key and the names of a CSR; Refused: something is wrong.

    The identity is the impersonated one or, without it, the one in the request; when both are
    there they must agree, so that what a caller signed is what it gets.
    """
    if len(csr_pem) > CSR_BYTES_MAX:
        raise Refused(CallRefusal.CSR_TOO_LARGE)
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        public_key = _checked_key(csr.public_key())  # first: it bounds what verifying costs
        if not csr.is_signature_valid:
            raise Refused(CallRefusal.CSR_SIGNATURE)
        named = _uri_names(csr)
    except UNREADABLE as exc:
        raise Refused(CallRefusal.CSR_MALFORMED) from exc
    if len(named) > 1:
        raise Refused(CallRefusal.CSR_SEVERAL_IDENTITIES)
    wanted = impersonated or "".join(named)
    if named and named[0] != wanted:
        raise Refused(CallRefusal.CSR_OTHER_IDENTITY)
    try:
        identity = parse_spiffe_id(wanted)
    except ValueError as exc:
        raise Refused(CallRefusal.IDENTITY_MALFORMED) from exc
    if identity.trust_domain != trust_domain:
        raise Refused(CallRefusal.OTHER_TRUST_DOMAIN)
    return CheckedRequest(public_key, identity)


def _checked_key(key: CertificatePublicKeyTypes) -> PublicKey:
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case rsa.RSAPublicKey() if RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            if key.public_numbers().e > RSA_EXPONENT_MAX:
                raise Refused(CallRefusal.CSR_KEY)
            return key
        case _:
            raise Refused(CallRefusal.CSR_KEY)


def _uri_names(csr: x509.CertificateSigningRequest) -> list[str]:
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != len(list(names)):
        raise Refused(
            CallRefusal.CSR_OTHER_NAMES
        )  # a DNS name or address has no place in a SPIFFE leaf
    return found


def leaf_ttl(asked_s: int, ttl_max: timedelta) -> timedelta:
    """Nothing asked means the default; more than the cap means the cap."""
    if asked_s <= 0:
        return min(TTL_DEFAULT, ttl_max)
    return max(TTL_MIN, timedelta(seconds=min(asked_s, int(ttl_max.total_seconds()))))


def issue_leaf(authority: Authority, request: CheckedRequest, ttl: timedelta, now: datetime) -> str:
    """The leaf in PEM: one URI SAN, no subject, for both ends of a TLS connection."""
    names = [x509.UniformResourceIdentifier(str(request.identity))]
    certificate = _build(authority, request.public_key, names, ttl, now)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """Certificate of our own port. The key never leaves memory."""

    key_pem: bytes
    chain_pem: bytes
    not_before: datetime
    not_after: datetime

    @property
    def renew_at(self) -> datetime:
        return self.not_before + (self.not_after - self.not_before) / 2

    def __repr__(self) -> str:
        return f"ServingCertificate(not_after={self.not_after.isoformat()})"


def issue_serving(
    authority: Authority, names: Iterable[str], ttl: timedelta, now: datetime
) -> ServingCertificate:
    """For the control plane's own port: DNS names, and addresses where a name is one."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _build(authority, key.public_key(), [_general(name) for name in names], ttl, now)
    return ServingCertificate(
        key_pem=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        chain_pem="".join(map(pem_of, (certificate, *authority.intermediates))).encode(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _build(
    authority: Authority,
    public_key: PublicKey,
    names: Iterable[x509.GeneralName],
    ttl: timedelta,
    now: datetime,
) -> x509.Certificate:
    key_usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=isinstance(public_key, rsa.RSAPublicKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        # A leaf that outlives its CA would fail on the day the CA ends, without warning.
        .not_valid_after(min(now + ttl, authority.ends_at))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # The subject is empty, so RFC 5280 (4.1.2.6) wants the names to be critical.
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(_key_identifier(authority.issuer), critical=False)
        .sign(authority.key, signing_hash(authority.key))
    )


def _key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Identifier of the issuer's key, as its certificate names it."""
    try:
        named = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]  # a CA's key is of a kind that signs
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)
