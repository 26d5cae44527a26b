"""TLS towards an API server: which authority, which certificate of our own; read again when a file
changes, since every cluster rotates both."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control.kube.errors import AccessError

PEM_BYTES_MAX = 4 * 1024 * 1024

Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Pem:
    """PEM text, given as it is or in a file."""

    data: bytes = b""
    path: Path | None = None

    def __repr__(self) -> str:
        return f"Pem({'data' if self.path is None else self.path})"  # it may be a private key

    def read(self) -> bytes:
        if self.path is None:
            return self.data
        try:
            with open(self.path, "rb") as handle:
                return handle.read(PEM_BYTES_MAX)
        except OSError as exc:
            raise AccessError(f"{self.path} cannot be read: {exc.strerror}") from exc

    def signature(self) -> tuple[int, int, int]:
        return (0, 0, 0) if self.path is None else signature_of(self.path)


def signature_of(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file is replaced or written to. Zeros while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate of our own and its key."""

    certificate: Pem
    key: Pem


@dataclass(frozen=True, slots=True)
class Trust:
    """`authority` None: those of this system. `server_name` is the name in its certificate, where
    that is not the host of the URL."""

    authority: Pem | None = None
    own: KeyPair | None = None
    is_insecure: bool = False
    server_name: str | None = None


class Contexts:
    """The context of a Trust, made again only when one of its files has changed."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._made: tuple[Signature, KeyPair | None, ssl.SSLContext] | None = None

    def get(self, own: KeyPair | None = None) -> ssl.SSLContext:
        """`own`: a certificate from an exec plugin, in place of the Trust's. Raises AccessError."""
        own = own or self._trust.own
        used = [self._trust.authority, *((own.certificate, own.key) if own else ())]
        signature = tuple(each.signature() for each in used if each is not None)
        if self._made is None or self._made[:2] != (signature, own):
            self._made = (signature, own, make_context(self._trust, own))
        return self._made[2]


def make_context(trust: Trust, own: KeyPair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.is_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.authority is None:
        context.load_default_certs()
    else:
        _trust_in(context, trust.authority)
    if own is not None:
        _show(context, own)
    return context


def _trust_in(context: ssl.SSLContext, authority: Pem) -> None:
    try:
        context.load_verify_locations(cadata=authority.read().decode("ascii"))
    except (ssl.SSLError, ValueError) as exc:
        raise AccessError(f"certificate authority {authority.path or '(data)'}: {exc}") from exc


def _show(context: ssl.SSLContext, own: KeyPair) -> None:
    where = f"{own.certificate.path or '(data)'} with {own.key.path or '(data)'}"
    try:
        with _as_file(own.certificate) as certificate, _as_file(own.key) as key:
            # Without a password function OpenSSL would ask on the terminal.
            context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError) as exc:
        raise AccessError(f"client certificate {where}: {exc}") from exc


@contextmanager
def _as_file(pem: Pem) -> Iterator[str]:
    """A path to read it from; data stays in memory and never touches a disk."""
    handle = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(pem.read())
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
