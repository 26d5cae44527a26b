"""Secrets on disk: the CA's key and root, and the token key. Made once, 0600, never overwritten."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.files import write_atomic
from control.server.ca.authority import Authority, key_pem_of, new_authority
from control.server.callers.tokens import KEY_BYTES

SECRET_BYTES_MAX = 64 * 1024
TOKEN_KEY_NAME = "token-key"  # in the state folder


class KeyFileError(ConfigError):
    reason = "key_file"


def load_authority(folder: Path, trust_domain: str, clock: Clock) -> Authority:
    """The CA of this folder, created on first use. `root-cert.pem` beside it is for everybody."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # the root is for everybody
    path = folder / "ca.pem"
    # Key and root are one file, so that they cannot come from two different moments.
    pem = _load_secret(path, lambda: _made(trust_domain, clock))
    try:
        key = serialization.load_pem_private_key(pem, None)
        root = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as exc:
        raise KeyFileError(f"{path}: not a private key and a certificate: {exc}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(f"{path}: the key is not an elliptic curve key")
    if key.public_key() != root.public_key():
        raise KeyFileError(f"{path}: the key does not belong to the certificate")
    if root.not_valid_after_utc <= clock.now():
        raise KeyFileError(f"{path}: the root ended at {root.not_valid_after_utc:%Y-%m-%d %H:%M}")
    authority = Authority(key, root)
    publish_root(folder, authority)
    return authority


def publish_root(folder: Path, authority: Authority) -> None:
    """Put the roots beside it, for everybody. Written only when they are not there yet: a full disk
    must not keep us from starting."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path, pem = folder / "root-cert.pem", authority.root_pem.encode()
    try:
        if path.read_bytes() == pem:
            return
    except FileNotFoundError:
        pass
    write_atomic(path, pem, 0o644)


def load_token_key(folder: Path) -> bytes:
    """The key of this folder's node tokens, created on first use."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / TOKEN_KEY_NAME
    text = _load_secret(path, lambda: secrets.token_hex(KEY_BYTES).encode() + b"\n")
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError as exc:
        raise KeyFileError(f"{path}: not a key in hexadecimal") from exc
    if len(key) < KEY_BYTES:
        raise KeyFileError(f"{path}: the key has fewer than {KEY_BYTES} bytes")
    return key


def _load_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        _create(path, make())
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(f"{path}: not a regular file")
        if mode & 0o077:
            raise KeyFileError(
                f"{path}: mode {stat.S_IMODE(mode):04o} lets others read a secret; "
                f"check who had access, then: chmod 600 {path}"
            )
        return file.read(SECRET_BYTES_MAX)


def _create(path: Path, data: bytes) -> None:
    """Whole or not at all, and never in place of one that another process just made."""
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        os.fchmod(handle, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass  # the other process was first: its secret is the secret
    finally:
        Path(scratch).unlink(missing_ok=True)


def _made(trust_domain: str, clock: Clock) -> bytes:
    made = new_authority(trust_domain, clock.now())
    return key_pem_of(made.key) + made.root_pem.encode()
