"""The keys that a cluster signs its tokens with, and the check of a token by them alone. Pure.

The API server's own word on a token (`reviews`) is worth more: it knows of pods that are gone. So
this counts only while it cannot be asked.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from control.server.callers.accounts import BoundPod, NodeAccounts

KEYS_MAX: Final = 32
RSA_BITS: Final = (2048, 8192)
RSA_EXPONENT_MAX: Final = 2**32

_HASHES: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_CURVES: Final[Mapping[tuple[str, str], ec.EllipticCurve]] = {
    ("ES256", "P-256"): ec.SECP256R1(),
    ("ES384", "P-384"): ec.SECP384R1(),
    ("ES512", "P-521"): ec.SECP521R1(),
}
_BAD: Final = (
    ValueError,
    TypeError,
    binascii.Error,
    InvalidSignature,
    UnsupportedAlgorithm,
    msgspec.DecodeError,
    RecursionError,
)


class Jwk(msgspec.Struct, frozen=True):
    kty: str = ""
    kid: str = ""
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


@dataclass(frozen=True, slots=True)
class ProvedToken:
    """A token that one of the keys has signed. Its pod's node may be empty."""

    pod: BoundPod
    subject: str
    issued_s: int
    expires_s: float


class IssuerKeys(msgspec.Struct, frozen=True):
    """As the API server publishes them."""

    issuer: str = ""
    keys: list[Jwk] = []


class _TokenHeader(msgspec.Struct):
    alg: str
    kid: str = ""


class _NamedObject(msgspec.Struct):
    name: str = ""
    uid: str = ""


class _Bound(msgspec.Struct):
    namespace: str = ""
    pod: _NamedObject = msgspec.field(default_factory=_NamedObject)
    node: _NamedObject = msgspec.field(default_factory=_NamedObject)


class _IssuedClaims(msgspec.Struct):
    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float = 0.0
    nbf: float = 0.0
    bound: _Bound = msgspec.field(default_factory=_Bound, name="kubernetes.io")


def proved(
    token: str, keys: IssuerKeys, accounts: NodeAccounts, *, now_s: float, expired_s: float
) -> ProvedToken | None:
    """The token of an account of ours; None: the keys do not prove that it is one. `expired_s`: it
    may have ended since then."""
    try:
        signed, signature = token.rsplit(".", 1)
        head, body = signed.split(".")
        header = msgspec.json.decode(_decoded(head), type=_TokenHeader)
        is_signed = any(
            _is_signed(each, header.alg, signed.encode(), _decoded(signature))
            for each in keys.keys[:KEYS_MAX]
            if each.kid == header.kid
        )
        if not is_signed:
            return None
        claims = msgspec.json.decode(_decoded(body), type=_IssuedClaims)
    except _BAD:
        return None
    named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    is_ours = claims.iss == keys.issuer and accounts.audience in named
    if not is_ours or not accounts.has(claims.sub):
        return None
    bound = claims.bound
    if (
        not expired_s < claims.exp < math.inf
        or claims.nbf > now_s
        or not 0 <= claims.iat <= claims.exp
    ):
        return None
    if claims.sub.split(":")[2] != bound.namespace or not bound.pod.name or not bound.pod.uid:
        return None
    pod = BoundPod(bound.namespace, bound.pod.name, bound.pod.uid, bound.node.name)
    return ProvedToken(pod, claims.sub, int(claims.iat), claims.exp)


def _is_signed(key: Jwk, algorithm: str, signed: bytes, signature: bytes) -> bool:
    try:
        kind, digest = algorithm[:2], _HASHES[algorithm[2:]]()
        if key.kty == "RSA" and kind == "RS":
            public = rsa.RSAPublicNumbers(_number(key.e), _number(key.n)).public_key()
            if not RSA_BITS[0] <= public.key_size <= RSA_BITS[1]:
                return False
            if public.public_numbers().e > RSA_EXPONENT_MAX:
                return False
            public.verify(signature, signed, padding.PKCS1v15(), digest)
            return True
        if key.kty == "EC":
            curve = _CURVES[algorithm, key.crv]
            half = (curve.key_size + 7) // 8
            if len(signature) != 2 * half:
                return False
            pair = (int.from_bytes(each) for each in (signature[:half], signature[half:]))
            numbers = ec.EllipticCurvePublicNumbers(_number(key.x), _number(key.y), curve)
            numbers.public_key().verify(encode_dss_signature(*pair), signed, ec.ECDSA(digest))
            return True
    except (*_BAD, KeyError):
        pass
    return False


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text))
