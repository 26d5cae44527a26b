"""Contexts are kept while their files are the same, and made again when one was replaced."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.kube.errors import AccessError
from control.kube.trust import Contexts, KeyPair, Pem, Trust
from control.server.ca.keys import load_authority
from control.server.ports import ServingCertificates
from tests.support.authorities import held


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, KeyPair]:
    """A root's file, and a certificate that it signed."""
    authority = load_authority(tmp_path / "ca", "td", SystemClock())
    serving = ServingCertificates(held(authority, SystemClock()), ["localhost"], SystemClock())
    made = serving.current()
    (tmp_path / "tls.crt").write_bytes(made.chain_pem)
    (tmp_path / "tls.key").write_bytes(made.key_pem)
    own = KeyPair(Pem(path=tmp_path / "tls.crt"), Pem(path=tmp_path / "tls.key"))
    return tmp_path / "ca" / "root-cert.pem", own


def test_a_context_is_kept_until_a_file_changes(pair: tuple[Path, KeyPair]) -> None:
    root, own = pair
    contexts = Contexts(Trust(Pem(path=root), own))
    first = contexts.get()
    assert contexts.get() is first
    (root.parent / "next").write_bytes(root.read_bytes())
    (root.parent / "next").rename(root)
    assert contexts.get() is not first


def test_data_serves_as_well_as_files(pair: tuple[Path, KeyPair]) -> None:
    root, own = pair
    data = KeyPair(Pem(own.certificate.read()), Pem(own.key.read()))
    context = Contexts(Trust(Pem(root.read_bytes()))).get(data)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_without_verification_nothing_is_checked() -> None:
    context = Contexts(Trust(is_insecure=True)).get()
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)


def test_a_broken_authority_and_a_broken_pair_are_named(
    pair: tuple[Path, KeyPair], tmp_path: Path
) -> None:
    root, own = pair
    with pytest.raises(AccessError, match="certificate authority"):
        Contexts(Trust(Pem(b"nothing"))).get()
    with pytest.raises(AccessError, match="certificate authority"):
        Contexts(Trust(Pem("Zertifikat für".encode()))).get()
    with pytest.raises(AccessError, match="missing"):
        Contexts(Trust(Pem(path=tmp_path / "missing"))).get()
    swapped = KeyPair(own.key, own.certificate)
    with pytest.raises(AccessError, match="client certificate"):
        Contexts(Trust(Pem(path=root), swapped)).get()


def test_a_pem_shows_no_key() -> None:
    assert "KEY" not in repr(Pem(b"-----BEGIN PRIVATE KEY-----"))
