"""Secrets on disk: made once, kept, 0600, and refused when others could have read them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.server.ca.keys import KeyFileError, load_authority, load_token_key
from tests.support.clock import FakeClock


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_root_survives_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    first = load_authority(tmp_path / "ca", "td", clock)
    again = load_authority(tmp_path / "ca", "td", clock)
    assert again.root == first.root
    assert mode(tmp_path / "ca/ca.pem") == 0o600
    assert mode(tmp_path / "ca/root-cert.pem") == 0o644
    shown = (tmp_path / "ca/root-cert.pem").read_text()
    assert shown == first.root_pem
    assert "PRIVATE" not in shown
    assert sorted(each.name for each in (tmp_path / "ca").iterdir()) == ["ca.pem", "root-cert.pem"]


def test_the_root_is_a_ca_for_ten_years(tmp_path: Path) -> None:
    root = load_authority(tmp_path, "td", FakeClock()).root
    root.verify_directly_issued_by(root)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert 3640 < (root.not_valid_after_utc - root.not_valid_before_utc).days <= 3651


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, bits: int) -> None:
    load_authority(tmp_path, "td", FakeClock())
    (tmp_path / "ca.pem").chmod(bits)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_authority(tmp_path, "td", FakeClock())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    load_token_key(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/token-key").symlink_to(tmp_path / "a/token-key")
    with pytest.raises(OSError):
        load_token_key(tmp_path / "b")


def test_what_is_no_ca_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nonsense")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a private key"):
        load_authority(tmp_path, "td", FakeClock())
    assert path.read_text() == "nonsense"


def test_key_and_root_must_belong_together(tmp_path: Path) -> None:
    one = load_authority(tmp_path / "a", "td", FakeClock())
    load_authority(tmp_path / "b", "td", FakeClock())
    pem = (tmp_path / "b/ca.pem").read_text()
    key = pem[: pem.index("-----BEGIN CERTIFICATE")]
    root = one.root.public_bytes(serialization.Encoding.PEM).decode()
    (tmp_path / "b/ca.pem").write_text(key + root)
    with pytest.raises(KeyFileError, match="does not belong"):
        load_authority(tmp_path / "b", "td", FakeClock())


def test_a_root_that_ended_is_refused(tmp_path: Path) -> None:
    clock = FakeClock()
    load_authority(tmp_path, "td", clock)
    clock.pass_s(3651 * 86400)
    with pytest.raises(KeyFileError, match="ended"):
        load_authority(tmp_path, "td", clock)


def test_the_token_key_survives_and_is_checked(tmp_path: Path) -> None:
    key = load_token_key(tmp_path)
    assert load_token_key(tmp_path) == key
    assert len(key) == 32
    for bad in ("xyz", "00"):
        (tmp_path / "token-key").write_text(bad)
        with pytest.raises(KeyFileError):
            load_token_key(tmp_path)
