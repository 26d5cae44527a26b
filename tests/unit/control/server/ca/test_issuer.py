"""Certificate requests: who gets a leaf, what is in it, and every way to be refused."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from control.server.ca import issuer
from control.server.ca.authority import Authority
from control.server.ca.issuer import Refused, check_request, issue_leaf, issue_serving, leaf_ttl
from control.server.ca.keys import load_authority
from tests.support.clock import START, FakeClock

URI = "spiffe://cluster.local/ns/shop/sa/web"
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return load_authority(tmp_path_factory.mktemp("ca"), "cluster.local", FakeClock())


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def csr(names: Sequence[x509.GeneralName] = (), key: Any = KEY) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()


def uri(text: str = URI) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def why(csr_pem: str, impersonated: str = URI) -> str:
    with pytest.raises(Refused) as caught:
        check_request(csr_pem, impersonated, "cluster.local")
    return caught.value.why.word


@pytest.mark.parametrize(("names", "impersonated"), [([uri()], URI), ([uri()], ""), ([], URI)])
def test_one_identity_in_the_request_the_metadata_or_both(
    names: list[x509.GeneralName], impersonated: str
) -> None:
    assert str(check_request(csr(names), impersonated, "cluster.local").identity) == URI


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), rsa_key(2048)],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_keys_that_are_fine(key: Any) -> None:
    assert check_request(csr(key=key), URI, "cluster.local")


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256K1()), rsa_key(1024)], ids=["k1", "RSA 1024"]
)
def test_keys_that_are_not(key: Any) -> None:
    assert why(csr(key=key)) == "csr_key"


@pytest.mark.parametrize(
    ("names", "impersonated", "reason"),
    [
        ([uri(), uri(URI + "2")], URI, "csr_several_identities"),
        ([uri(), uri()], URI, "csr_several_identities"),
        ([uri(URI + "2")], URI, "csr_other_identity"),
        ([uri(), x509.DNSName("example.com")], URI, "csr_other_names"),
        ([x509.DNSName("example.com")], URI, "csr_other_names"),
        ([], "", "identity_malformed"),
        ([], "web", "identity_malformed"),
        ([], URI + "/x", "identity_malformed"),
        ([], "spiffe://elsewhere/ns/shop/sa/web", "other_trust_domain"),
        ([uri("spiffe://elsewhere/ns/shop/sa/web")], "", "other_trust_domain"),
    ],
)
def test_names_that_are_refused(
    names: list[x509.GeneralName], impersonated: str, reason: str
) -> None:
    assert why(csr(names), impersonated) == reason


def test_a_request_somebody_changed_is_refused() -> None:
    der = bytearray(
        x509.load_pem_x509_csr(csr([uri()]).encode()).public_bytes(serialization.Encoding.DER)
    )
    der[der.index(b"/sa/web") + 4] ^= 1
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    assert why(changed, "") == "csr_signature"


def test_a_request_of_a_version_that_there_is_not_is_refused() -> None:
    der = x509.load_pem_x509_csr(csr([uri()]).encode()).public_bytes(serialization.Encoding.DER)
    text = base64.encodebytes(der.replace(b"\2\1\0", b"\2\1\x41", 1)).decode()
    request = "CERTIFICATE REQUEST-----"
    assert why(f"-----BEGIN {request}\n{text}-----END {request}\n") == "csr_malformed"


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request_is_refused(text: str) -> None:
    assert why(text) == "csr_malformed"


def test_a_request_is_bounded() -> None:
    assert why("x" * (issuer.CSR_BYTES_MAX + 1)) == "csr_too_large"


def leaf(authority: Authority, ttl: timedelta = timedelta(hours=1)) -> x509.Certificate:
    request = check_request(csr([uri()]), URI, "cluster.local")
    pem = issue_leaf(authority, request, ttl, START)
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_leaf(authority: Authority) -> None:
    made = leaf(authority)
    made.verify_directly_issued_by(authority.root)
    assert made.public_key() == KEY.public_key()
    assert len(list(made.subject)) == 0
    assert made.not_valid_before_utc == START - timedelta(minutes=2)
    assert made.not_valid_after_utc == START + timedelta(hours=1)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [uri()]
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    assert leaf(authority).serial_number != made.serial_number


def test_a_leaf_never_outlives_its_root(authority: Authority) -> None:
    made = leaf(authority, timedelta(days=36500))
    assert made.not_valid_after_utc == authority.root.not_valid_after_utc


@pytest.mark.parametrize(
    ("asked_s", "cap_h", "expected_s"),
    [
        (0, 24, 86400),
        (-5, 24, 86400),
        (3600, 24, 3600),
        (10**18, 24, 86400),
        (0, 1, 3600),
        (1, 24, 10),
    ],
)
def test_ttl(asked_s: int, cap_h: int, expected_s: int) -> None:
    assert leaf_ttl(asked_s, timedelta(hours=cap_h)).total_seconds() == expected_s


def test_the_ports_own_certificate(authority: Authority) -> None:
    made = issue_serving(
        authority, ["istiod.istio-system.svc", "::1", "10.0.0.1"], timedelta(hours=24), START
    )
    certificate = x509.load_pem_x509_certificate(made.chain_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["::1", "10.0.0.1"]
    assert made.not_before < made.renew_at < made.not_after
    assert "PRIVATE" not in repr(made)


@given(st.text(max_size=100), st.text(max_size=60))
def test_any_text_gives_a_request_or_a_refusal(csr_pem: str, identity: str) -> None:
    wrapped = f"-----BEGIN CERTIFICATE REQUEST-----\n{csr_pem}\n-----END CERTIFICATE REQUEST-----"
    for text in (csr_pem, wrapped):
        with pytest.raises(Refused):
            check_request(text, identity, "cluster.local")
