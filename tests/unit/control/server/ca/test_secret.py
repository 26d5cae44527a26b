"""A CA in a Secret: the shapes that people have, and words for what is wrong with it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.model.identity import parse_spiffe_id
from control.server.ca.authority import key_pem_of, new_authority, pem_of
from control.server.ca.issuer import CheckedRequest, issue_leaf
from control.server.ca.secret import BadCaSecret, authority_of, data_of
from tests.support.authorities import CompanyCa
from tests.support.clock import FakeClock
from ztunnel.identity.csr import check_chain

NOW = FakeClock().now() + timedelta(minutes=5)
ID = parse_spiffe_id("spiffe://cluster.local/ns/shop/sa/web")
ROOT = CompanyCa("root", NOW - timedelta(minutes=1))
BETWEEN = CompanyCa("between", NOW - timedelta(minutes=1), ROOT)
RSA = rsa.generate_private_key(65537, 2048)


def data(**parts: str | bytes) -> dict[str, str]:
    """`tls_crt` is the key tls.crt, `ca_cert_pem` Istio's ca-cert.pem."""
    names = {name: name.replace("_", "-").replace("-pem", ".pem") for name in parts}
    names |= {"tls_crt": "tls.crt", "tls_key": "tls.key", "ca_crt": "ca.crt"}
    return {
        names[name]: base64.b64encode(each.encode() if isinstance(each, str) else each).decode()
        for name, each in parts.items()
    }


def pem(*many: CompanyCa) -> str:
    return "".join(pem_of(each.certificate) for each in many)


def read(values: dict[str, str]) -> list[str]:
    """Chain of a leaf that the CA signs, as a ztunnel would have to accept it."""
    authority = authority_of(values, "Secret a/b", NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue_leaf(authority, CheckedRequest(key.public_key(), ID), timedelta(hours=1), NOW)
    check_chain(ID, key, [leaf, *authority.chain_pem], NOW)
    return authority.chain_pem


def test_what_we_write_is_what_we_read() -> None:
    made = new_authority("cluster.local", NOW)
    found = authority_of(data_of(made), "Secret a/b", NOW)
    assert found == made
    assert found.key.public_key() == made.key.public_key()


def test_an_intermediate_of_cert_manager() -> None:
    key = key_pem_of(BETWEEN.key)
    for crt in (pem(BETWEEN), pem(BETWEEN, ROOT)):
        assert read(data(tls_crt=crt, tls_key=key, ca_crt=pem(ROOT))) == [pem(BETWEEN), pem(ROOT)]
    assert read(data(tls_crt=pem(BETWEEN, ROOT), tls_key=key)) == [pem(BETWEEN), pem(ROOT)]


def test_a_self_signed_ca_needs_no_bundle() -> None:
    key = key_pem_of(ROOT.key)
    assert read(data(tls_crt=pem(ROOT), tls_key=key, ca_crt="")) == [pem(ROOT)]
    assert read(data(tls_crt=pem(ROOT), tls_key=key)) == [pem(ROOT)]


def test_istios_cacerts() -> None:
    deep = CompanyCa("deep", NOW, BETWEEN)
    found = read(
        data(
            ca_cert_pem=pem(deep),
            ca_key_pem=key_pem_of(deep.key),
            cert_chain_pem=pem(deep, BETWEEN),
            root_cert_pem=pem(ROOT),
        )
    )
    assert found == [pem(deep), pem(BETWEEN), pem(ROOT)]


def test_a_bundle_of_roots_is_trusted_whole() -> None:
    other = CompanyCa("next root", NOW)
    found = read(
        data(tls_crt=pem(BETWEEN), tls_key=key_pem_of(BETWEEN.key), ca_crt=pem(other, ROOT))
    )
    assert found == [pem(BETWEEN), pem(ROOT) + pem(other)]


@pytest.mark.parametrize(
    "key", [RSA, ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())]
)
def test_keys_of_every_kind_that_signs(key: rsa.RSAPrivateKey) -> None:
    ca = CompanyCa("ca", NOW, ROOT, key=key)
    old = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    read(data(tls_crt=pem(ca), tls_key=old, ca_crt=pem(ROOT)))


def chain_of(ca: CompanyCa, *roots: CompanyCa) -> dict[str, str]:
    return data(tls_crt=pem(ca), tls_key=key_pem_of(ca.key), ca_crt=pem(*(roots or (ROOT,))))


KEY = key_pem_of(BETWEEN.key)
LOCKED = BETWEEN.key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"secret"),
)
SHORT = CompanyCa("short", NOW, paths=0)
OTHER = CompanyCa("other", NOW, SHORT)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: {}, "no tls.crt or ca-cert.pem in it"),
        (lambda: data(tls_crt=pem(BETWEEN)), "tls.key is missing or empty"),
        (lambda: {"tls.crt": "%", "tls.key": "%"}, "tls.key is not base64"),
        (lambda: data(tls_crt="x", tls_key=KEY), "tls.crt is not certificates in PEM"),
        (lambda: data(tls_crt=pem(BETWEEN), tls_key="x"), "tls.key is not a private key in PEM"),
        (lambda: data(tls_crt=pem(BETWEEN), tls_key=LOCKED), "tls.key is encrypted"),
        (lambda: data(tls_crt=pem(ROOT), tls_key=KEY), "the first certificate is not that of tls"),
        (lambda: data(tls_crt=pem(BETWEEN), tls_key=KEY), "no ca.crt, and no root in tls.crt"),
        (
            lambda: chain_of(BETWEEN, CompanyCa("stranger", NOW)),
            '"CN=between" was signed by "CN=root", no root of: "CN=stranger"',
        ),
        (lambda: chain_of(CompanyCa("leaf", NOW, ROOT, is_ca=False)), '"CN=leaf" is not a CA'),
        (lambda: chain_of(CompanyCa("mute", NOW, ROOT, signs=False)), "may not sign certificates"),
        (
            lambda: chain_of(CompanyCa("late", NOW, ROOT, begins=timedelta(days=1))),
            '"CN=late" begins at 2026-01-02',
        ),
        (
            lambda: chain_of(CompanyCa("old", NOW, ROOT, begins=timedelta(days=-400))),
            '"CN=old" ended at',
        ),
        (
            lambda: chain_of(CompanyCa("below", NOW, SHORT), SHORT),
            '"CN=short" allows 0 CAs below it, and there are 1',
        ),
        (
            lambda: data(tls_crt=pem(BETWEEN, OTHER), tls_key=KEY, ca_crt=pem(SHORT)),
            "was not signed by",
        ),
    ],
)
def test_a_ca_that_could_not_serve_is_refused_in_words(
    make: Callable[[], dict[str, str]], words: str
) -> None:
    with pytest.raises(BadCaSecret) as caught:
        authority_of(make(), "Secret a/b", NOW)
    assert words in str(caught.value)
    assert str(caught.value).startswith("Secret a/b: ")


def test_a_short_rsa_key_is_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    ca = CompanyCa("weak", NOW, key=weak)
    with pytest.raises(BadCaSecret, match="2048 bits or more"):
        authority_of(data(tls_crt=pem(ca), tls_key=key_pem_of(weak)), "Secret a/b", NOW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a003020102", "a003020138"),  # a version that X.509 does not have
        ("06082a8648ce3d030107", "06082a8648ce3d030106"),  # a curve that OpenSSL does not have
    ],
)
def test_a_certificate_that_no_library_reads_ends_nobody(old: str, new: str) -> None:
    """Else a change of the Secret would end every replica."""
    der = ROOT.certificate.public_bytes(serialization.Encoding.DER).hex()
    text = base64.encodebytes(bytes.fromhex(der.replace(old, new, 1))).decode()
    crt = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
    assert old in der
    with pytest.raises(BadCaSecret, match="Secret a/b: a certificate in it cannot be read"):
        authority_of(data(tls_crt=crt, tls_key=key_pem_of(ROOT.key)), "Secret a/b", NOW)
