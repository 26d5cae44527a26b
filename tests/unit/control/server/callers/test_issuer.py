"""Tokens proved by the keys of the cluster alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from control.server.callers.accounts import BoundPod
from control.server.callers.issuer import IssuerKeys, Jwk, ProvedToken, proved
from tests.support.account_tokens import ACCOUNTS, ZTUNNEL, part

NOW_S = 1000.0
ISSUER = "https://kubernetes.default.svc"
EC_KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
Sign = Callable[[bytes], bytes]


def number(value: int, size: int) -> str:
    return part(value.to_bytes(size))


def jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, kid: str) -> Jwk:
    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return Jwk("RSA", kid, number(public.n, 256), number(public.e, 3))
    place = key.public_key().public_numbers()
    return Jwk("EC", kid, crv="P-256", x=number(place.x, 32), y=number(place.y, 32))


KEYS = IssuerKeys(ISSUER, [jwk(EC_KEY, "e"), jwk(RSA_KEY, "r")])


def by_ec(key: ec.EllipticCurvePrivateKey = EC_KEY) -> Sign:
    def sign(data: bytes) -> bytes:
        pair = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return b"".join(each.to_bytes(32) for each in pair)

    return sign


def by_rsa(data: bytes) -> bytes:
    return RSA_KEY.sign(data, padding.PKCS1v15(), hashes.SHA256())


def token(sign: Sign, header: dict[str, str] | None = None, **changes: Any) -> str:
    bound: dict[str, Any] = {
        "namespace": "tulle-system",
        "pod": {"name": "z1", "uid": "u1"},
        "node": {"name": "n1", "uid": "x"},
    }
    claims = {
        "iss": ISSUER,
        "sub": ZTUNNEL,
        "aud": ["istio-ca"],
        "exp": NOW_S + 60,
        "iat": NOW_S - 60,
        "kubernetes.io": bound,
        **changes,
    }
    signed = f"{part(header or {'alg': 'ES256', 'kid': 'e'})}.{part(claims)}"
    return f"{signed}.{part(sign(signed.encode()))}"


def check(text: str, keys: IssuerKeys = KEYS, expired_s: float = NOW_S) -> ProvedToken | None:
    return proved(text, keys, ACCOUNTS, now_s=NOW_S, expired_s=expired_s)


GOOD = ProvedToken(BoundPod("tulle-system", "z1", "u1", "n1"), ZTUNNEL, 940, NOW_S + 60)


def test_tokens_of_both_kinds_of_keys_are_proved() -> None:
    assert check(token(by_ec())) == GOOD
    assert check(token(by_rsa, {"alg": "RS256", "kid": "r"})) == GOOD
    assert check(token(by_ec(), aud="istio-ca")) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        token(by_ec(OTHER)),
        token(by_ec(), {"alg": "ES256", "kid": "r"}),
        token(by_ec(), {"alg": "ES256", "kid": "z"}),
        token(by_ec(), {"alg": "ES384", "kid": "e"}),
        token(by_ec(), {"alg": "none", "kid": "e"}),
        token(by_ec(), {"alg": "HS256", "kid": "e"}),
        token(lambda data: b"", {"alg": "RS256", "kid": "r"}),
        token(lambda data: bytes(64)),
        token(by_rsa, {"alg": "RS512", "kid": "r"}),
        token(by_ec(), iss="https://elsewhere"),
        token(by_ec(), aud=["other"]),
        token(by_ec(), sub="system:serviceaccount:tulle-system:default"),
        token(by_ec(), exp=NOW_S),
        token(by_ec(), exp=float("1e999")),
        token(by_ec(), nbf=NOW_S + 1),
        token(by_ec(), iat=NOW_S + 100),
        token(by_ec(), **{"kubernetes.io": {"namespace": "tulle-system"}}),
        token(
            by_ec(),
            **{"kubernetes.io": {"namespace": "shop", "pod": {"name": "z1", "uid": "u1"}}},
        ),
        "",
        "a.b",
        "a.b.c.d",
        "x" * 8000,
    ],
)
def test_anything_else_proves_nothing(text: str) -> None:
    assert check(text) is None


def test_one_that_ended_since_then_is_proved() -> None:
    assert check(token(by_ec(), exp=NOW_S - 10), expired_s=NOW_S - 20) is not None
    assert check(token(by_ec(), exp=NOW_S - 10), expired_s=NOW_S - 5) is None


def test_an_older_token_names_no_node() -> None:
    bound = {"namespace": "tulle-system", "pod": {"name": "z1", "uid": "u1"}}
    found = check(token(by_ec(), **{"kubernetes.io": bound}))
    assert found is not None
    assert found.pod.node == ""


@given(st.builds(Jwk, *[st.sampled_from(["EC", "RSA", "e", "AQAB", "P-256", "", "?"])] * 7))
def test_no_key_ends_the_process(key: Jwk) -> None:
    named = Jwk(key.kty, "e", key.n, key.e, key.crv, key.x, key.y)
    for algorithm in ("ES256", "RS256"):
        text = token(by_ec(), {"alg": algorithm, "kid": "e"})
        assert check(text, IssuerKeys(ISSUER, [named])) is None


@given(st.text(max_size=60))
def test_no_text_ends_the_process(text: str) -> None:
    assert check(text) is None
    assert check(f"{text}.{text}.{text}") is None
