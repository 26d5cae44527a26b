"""Signing requests, and the check of a signer's chain."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.ztunnel.identity.certs_rig import API, CA, NOW, WEB, Authority, pem
from ztunnel.identity.csr import CertificateInvalid, check_chain, make_csr, make_key
from ztunnel.supervisor import dump

KEY = make_key()


def test_a_request_has_one_uri_and_no_subject() -> None:
    csr = x509.load_pem_x509_csr(make_csr(KEY, WEB).encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
    assert len(names) == 1
    assert not list(csr.subject)
    assert csr.is_signature_valid


def test_a_good_chain_is_taken_and_hides_its_key() -> None:
    issued = check_chain(WEB, KEY, CA.chain(KEY.public_key(), str(WEB)), NOW)
    assert issued.not_after == NOW + timedelta(days=1)
    assert "PRIVATE" in issued.key_pem
    assert "PRIVATE" not in repr(issued)
    shown = dump.certificate(WEB, issued, "")
    assert shown["state"] == "Available"
    assert shown["certChain"][0]["serialNumber"] == str(issued.serial)
    assert issued.key_pem.splitlines()[1] not in str(shown)


OTHER = Authority()


class Intermediate(Authority):
    """Signs for another authority, with a certificate of it."""

    def __init__(self, above: Authority) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intermediate")])
        key = self.key.public_key()
        self.root = above._sign(above.root.subject, name, key, None, NOW, 3650)


@pytest.mark.parametrize("apart", [True, False])
def test_a_signer_may_put_one_certificate_or_several_in_each_part(apart: bool) -> None:
    """istiod gives each root of a bundle its own part; others give the bundle as one."""
    below = Intermediate(CA)
    leaf = below.chain(KEY.public_key(), str(WEB))[0]
    parts = [leaf, pem(below.root), pem(CA.root), pem(OTHER.root)]
    chain = parts if apart else [leaf + parts[1], parts[2] + parts[3]]
    issued = check_chain(WEB, KEY, chain, NOW)
    assert issued.chain_pem == (leaf, pem(below.root))
    roots = x509.load_pem_x509_certificates(issued.roots_pem.encode())
    assert {pem(each) for each in roots} == {pem(CA.root), pem(OTHER.root)}
    with pytest.raises(CertificateInvalid, match="none of the roots"):
        check_chain(WEB, KEY, [leaf, pem(below.root), pem(OTHER.root)], NOW)


@pytest.mark.parametrize(
    ("why", "chain"),
    [
        ("not for", CA.chain(KEY.public_key(), str(API))),
        ("not for", CA.chain(KEY.public_key(), str(WEB), str(API))),
        ("not for", CA.chain(KEY.public_key())),
        ("another key", CA.chain(make_key().public_key(), str(WEB))),
        ("valid from", CA.chain(KEY.public_key(), str(WEB), start=NOW + timedelta(hours=1))),
        ("valid from", CA.chain(KEY.public_key(), str(WEB), start=NOW - timedelta(days=2))),
        ("none of the roots", CA.chain(KEY.public_key(), str(WEB), root=pem(OTHER.root))),
        ("not PEM", CA.chain(KEY.public_key(), str(WEB), root="")),
        ("a root", CA.chain(KEY.public_key(), str(WEB))[:1]),
        ("a root", []),
        ("not PEM", ["x", "y"]),
    ],
)
def test_what_a_signer_may_not_send(why: str, chain: list[str]) -> None:
    with pytest.raises(CertificateInvalid, match=why):
        check_chain(WEB, KEY, chain, NOW)
