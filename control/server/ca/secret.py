"""Reads a CA out of a Secret: cert-manager's shape, or Istio's. Pure.

Everything that would fail on a node later is checked here, with words that name the key and the
certificate: a CA that cannot sign, a chain that leads nowhere, an end that has passed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.kit.errors import ConfigError
from control.server.ca.authority import (
    CLOCK_SKEW,
    UNREADABLE,
    Authority,
    SigningKey,
    key_pem_of,
    pem_of,
)

CHAIN_MAX = 6  # certificates between leaf and root; a ztunnel takes 8 parts
ROOTS_MAX = 16
RSA_BITS_MIN = 2048


class BadCaSecret(ConfigError):
    reason: ClassVar[str] = "ca_secret"


class _SecretMeta(msgspec.Struct):
    version: str = msgspec.field(default="", name="resourceVersion")


class SecretObject(msgspec.Struct):
    """The parts of any Secret that are read."""

    metadata: _SecretMeta = msgspec.field(default_factory=_SecretMeta)
    data: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SecretShape:
    """Names of the keys. `more` are further certificates of the chain, in a key of their own."""

    certificate: str
    key: str
    roots: str
    more: str = ""


CERT_MANAGER = SecretShape("tls.crt", "tls.key", "ca.crt")
ISTIO = SecretShape("ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem")


def data_of(authority: Authority) -> dict[str, str]:
    """The data of a Secret with this CA."""
    chain = "".join(map(pem_of, authority.intermediates)) or authority.root_pem
    parts = {
        CERT_MANAGER.certificate: chain.encode(),
        CERT_MANAGER.key: key_pem_of(authority.key),
        CERT_MANAGER.roots: authority.root_pem.encode(),
    }
    return {name: base64.b64encode(value).decode() for name, value in parts.items()}


def authority_of(data: Mapping[str, str], where: str, now: datetime) -> Authority:
    """The CA of a Secret's data, in base64 as the API has it. Raises BadCaSecret."""
    shape = next((each for each in (CERT_MANAGER, ISTIO) if each.certificate in data), None)
    if shape is None:
        wanted = f"{CERT_MANAGER.certificate} or {ISTIO.certificate}"
        raise BadCaSecret(f"{where}: no {wanted} in it")
    try:
        return _read(_Parts(data, where), shape, f"{where}: {shape.certificate}", now)
    except UNREADABLE as exc:
        raise BadCaSecret(f"{where}: a certificate in it cannot be read: {exc}") from exc


def _read(read: _Parts, shape: SecretShape, place: str, now: datetime) -> Authority:
    data, where = read.data, read.where
    key = read.key(shape.key)
    chain = read.certificates(shape.certificate)
    if shape.more in data:
        chain += [each for each in read.certificates(shape.more) if each not in chain]
    roots = read.certificates(shape.roots) if data.get(shape.roots) else []
    if key.public_key() != chain[0].public_key():
        raise BadCaSecret(f"{place}: the first certificate is not that of {shape.key}")
    while len(chain) > 1 and _signed(chain[-1], chain[-1]):
        roots = [*roots, *([chain[-1]] if chain[-1] not in roots else [])]
        chain.pop()
    if _signed(chain[0], chain[0]) and chain[0] not in roots:
        roots = [chain[0], *roots]
    if not roots:
        raise BadCaSecret(f"{where}: no {shape.roots}, and no root in {shape.certificate}")
    return _checked(key, chain, roots, place, now)


@dataclass(frozen=True, slots=True)
class _Parts:
    data: Mapping[str, str]
    where: str

    def bytes_of(self, name: str) -> bytes:
        if not self.data.get(name):
            raise BadCaSecret(f"{self.where}: {name} is missing or empty")
        try:
            return base64.b64decode(self.data[name], validate=True)
        except (binascii.Error, ValueError) as exc:
            raise BadCaSecret(f"{self.where}: {name} is not base64") from exc

    def key(self, name: str) -> SigningKey:
        data = self.bytes_of(name)
        try:
            key = serialization.load_pem_private_key(data, None)
        except TypeError as exc:
            raise BadCaSecret(f"{self.where}: {name} is encrypted; it has to be plain") from exc
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise BadCaSecret(f"{self.where}: {name} is not a private key in PEM") from exc
        match key:
            case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1() | ec.SECP384R1() | ec.SECP521R1()):
                return key
            case ed25519.Ed25519PrivateKey():
                return key
            case rsa.RSAPrivateKey() if key.key_size >= RSA_BITS_MIN:
                return key
        raise BadCaSecret(
            f"{self.where}: {name}: a key of P-256, P-384, P-521 or Ed25519 is needed, "
            f"or RSA with {RSA_BITS_MIN} bits or more"
        )

    def certificates(self, name: str) -> list[x509.Certificate]:
        data = self.bytes_of(name)
        try:
            found = x509.load_pem_x509_certificates(data)
        except ValueError as exc:
            raise BadCaSecret(f"{self.where}: {name} is not certificates in PEM: {exc}") from exc
        if len(found) > ROOTS_MAX:
            raise BadCaSecret(f"{self.where}: {name} has more than {ROOTS_MAX} certificates")
        return list(dict.fromkeys(found))


def _checked(
    key: SigningKey,
    chain: list[x509.Certificate],
    roots: list[x509.Certificate],
    place: str,
    now: datetime,
) -> Authority:
    """The CA, if each of the chain signed the one before and a root the last."""
    if len(chain) > CHAIN_MAX:
        raise BadCaSecret(f"{place}: more than {CHAIN_MAX} certificates below the root")
    if chain[0] in roots:
        root, intermediates = chain[0], []
    else:
        root, intermediates = _root_of(chain[-1], roots, place), chain
    for below, above in zip(intermediates, [*intermediates, root][1:], strict=True):
        if not _signed(below, above):
            raise BadCaSecret(f"{place}: {_name(below)} was not signed by {_name(above)}")
    for depth, each in enumerate([*intermediates, root]):
        _check_ca(each, depth - (each is root and not intermediates), place, now)
    others = tuple(each for each in roots if each != root and each.not_valid_after_utc > now)
    return Authority(key, root, tuple(intermediates), others)


def _root_of(last: x509.Certificate, roots: list[x509.Certificate], place: str) -> x509.Certificate:
    for each in roots:
        if _signed(last, each):
            return each
    names = ", ".join(map(_name, roots))
    raise BadCaSecret(f"{place}: {_name(last)} was signed by {_issuer(last)}, no root of: {names}")


def _check_ca(each: x509.Certificate, below: int, place: str, now: datetime) -> None:
    """`below`: CA certificates between this one and a leaf."""
    name = f"{place}: {_name(each)}"
    if each.not_valid_after_utc <= now:
        raise BadCaSecret(f"{name} ended at {each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if each.not_valid_before_utc > now + CLOCK_SKEW:
        raise BadCaSecret(f"{name} begins at {each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    try:
        basic = each.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        basic = None
    if basic is None or not basic.ca:
        raise BadCaSecret(f"{name} is not a CA (basic constraints)")
    if basic.path_length is not None and basic.path_length < below:
        raise BadCaSecret(f"{name} allows {basic.path_length} CAs below it, and there are {below}")
    try:
        usage = each.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if not usage.key_cert_sign:
        raise BadCaSecret(f"{name} may not sign certificates (key usage)")


def _signed(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except UNREADABLE:
        return False
    return True


def _name(certificate: x509.Certificate) -> str:
    return f'"{certificate.subject.rfc4514_string()[:100]}"'


def _issuer(certificate: x509.Certificate) -> str:
    return f'"{certificate.issuer.rfc4514_string()[:100]}"'
