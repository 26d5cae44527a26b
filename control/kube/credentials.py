"""Ways to say who we are to an API server: a token, a file with one, a password, a plugin."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from control.kube.errors import AccessError
from control.kube.trust import KeyPair, signature_of

TOKEN_BYTES_MAX = 64 * 1024  # OIDC tokens with many groups reach some KiB


@dataclass(frozen=True, slots=True)
class Proof:
    """`authorization` is the header's value, empty for none; `own` a certificate to show."""

    authorization: str = ""
    own: KeyPair | None = None

    def __repr__(self) -> str:
        return f"Proof(authorization={'…' if self.authorization else 'none'}, own={self.own})"


class KubeCredentials(Protocol):
    async def proof(self) -> Proof:
        """The proof to show now. Raises AccessError."""

    def refused(self) -> None:
        """The server did not accept it (401): what was remembered is worth nothing."""


class Anonymous:
    """Nothing, or only the certificate that the Trust has."""

    async def proof(self) -> Proof:
        return Proof()

    def refused(self) -> None:
        """Nothing is remembered."""


class Token:
    """A token that was given as it is."""

    def __init__(self, token: str, where: str = "token") -> None:
        self._proof = bearer(token, where)

    async def proof(self) -> Proof:
        return self._proof

    def refused(self) -> None:
        """There is no other one."""


class Password:
    def __init__(self, user: str, password: str) -> None:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._proof = Proof(f"Basic {pair}")

    async def proof(self) -> Proof:
        return self._proof

    def refused(self) -> None:
        """There is no other one."""


class TokenFile:
    """A file that somebody else keeps fresh, as the kubelet does: read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, int, int] | None = None
        self._proof = Proof()

    async def proof(self) -> Proof:
        signature = signature_of(self._path)
        if self._signature != signature or not any(signature):
            self._proof = self._read()
            self._signature = signature
        return self._proof

    def _read(self) -> Proof:
        try:
            with open(self._path, "rb") as handle:
                data = handle.read(TOKEN_BYTES_MAX + 1)
        except OSError as exc:
            raise AccessError(f"token file {self._path}: {exc.strerror}") from exc
        return bearer(data.decode(errors="replace"), f"token file {self._path}")

    def refused(self) -> None:
        self._signature = None


def bearer(token: str, where: str) -> Proof:
    """The header for a token. Raises AccessError for one that no header can hold."""
    token = token.strip()
    if not token:
        raise AccessError(f"{where} is empty")
    if len(token) > TOKEN_BYTES_MAX or not token.isascii() or not token.isprintable():
        raise AccessError(f"{where} holds no token")
    return Proof(f"Bearer {token}")
