"""SPIFFE ids of a certificate: all of them, in order, and nothing else."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from control.model.identity import SpiffeId
from control.wire.x509 import spiffe_ids
from tests.support.certificates import make_authority

AUTHORITY = make_authority()
WEB = SpiffeId("cluster.local", "shop", "web")
DB = SpiffeId("cluster.local", "shop", "db")


def ids(*uris: str, hosts: tuple[str, ...] = ()) -> tuple[SpiffeId, ...]:
    (leaf,) = x509.load_pem_x509_certificates(AUTHORITY.issue(*uris, hosts=hosts).chain_pem[0])
    return spiffe_ids(leaf)


@pytest.mark.parametrize(
    ("uris", "hosts", "expected"),
    [
        ((), (), ()),
        ((), ("web.shop",), ()),
        ((str(WEB),), ("web.shop",), (WEB,)),
        ((str(DB), str(WEB)), (), (DB, WEB)),
        (("https://example.org/", str(WEB), "spiffe://cluster.local/odd"), (), (WEB,)),
        (("spiffe://cluster.local/ns/shop/sa/", "spiffe:///ns/shop/sa/web"), (), ()),
    ],
)
def test_uri_names_that_are_spiffe_ids(
    uris: tuple[str, ...], hosts: tuple[str, ...], expected: tuple[SpiffeId, ...]
) -> None:
    assert ids(*uris, hosts=hosts) == expected


@given(st.binary(max_size=60))
def test_names_that_cannot_be_read_are_none(names: bytes) -> None:
    extension = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, names)
    template = AUTHORITY.certificate
    leaf = (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(template.subject)
        .public_key(AUTHORITY.key.public_key())
        .serial_number(1)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .add_extension(extension, critical=False)
        .sign(AUTHORITY.key, hashes.SHA256())
    )
    assert spiffe_ids(leaf) == ()
