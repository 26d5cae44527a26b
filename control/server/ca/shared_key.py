"""The key of node tokens, shared by all replicas of a cluster: made once, in a Secret of ours.

Each replica has it in its state folder too, where `tulle-control token` finds it, and where it is
while the API server is away.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from pathlib import Path
from typing import Final

import msgspec

from control.kit.errors import MeshError
from control.kit.files import write_atomic
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import SECRETS
from control.server.ca.keys import TOKEN_KEY_NAME, load_token_key
from control.server.callers.tokens import KEY_BYTES

log = logging.getLogger("ca")

SHARED_NAME: Final = "tulle-token-key"
_KEY: Final = "token-key"
ASK_S: Final = 10.0  # a start waits no longer for it


class KeySecret(msgspec.Struct):
    data: dict[str, str] | None = None


async def share_token_key(client: KubeClient, namespace: str, folder: Path) -> None:
    """Take over the key of the other replicas, or give them this folder's. Without it, a line says
    so, and the tokens of this folder are good at this replica alone."""
    where = f"Secret {namespace}/{SHARED_NAME}"
    try:
        async with asyncio.timeout(ASK_S):
            found = await _read(client, namespace)
            if found is None:
                await _give(client, namespace, load_token_key(folder))
                found = await _read(client, namespace)
    except (MeshError, TimeoutError) as exc:
        error = str(exc) or "no answer in time"
        event(log, logging.WARNING, "token_key.not_shared", secret=where, error=error)
        return
    if found is None or len(found) < KEY_BYTES:
        error = f"no key of {KEY_BYTES} bytes or more in {_KEY}"
        event(log, logging.ERROR, "token_key.not_shared", secret=where, error=error)
        return
    if load_token_key(folder) != found:
        write_atomic(folder / TOKEN_KEY_NAME, found.hex().encode() + b"\n", 0o600)


async def _read(client: KubeClient, namespace: str) -> bytes | None:
    """None: it is not there yet; empty: it holds no key."""
    try:
        secret = await client.get(SECRETS.path(namespace, SHARED_NAME), KeySecret)
    except ApiError as exc:
        if exc.code == 404:
            return None
        raise
    try:
        return base64.b64decode((secret.data or {}).get(_KEY, ""), validate=True)
    except binascii.Error:
        return b""


async def _give(client: KubeClient, namespace: str, key: bytes) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": SHARED_NAME,
            "labels": {"app.kubernetes.io/managed-by": "tulle-control"},
        },
        "data": {_KEY: base64.b64encode(key).decode()},
    }
    try:
        await client.create(SECRETS.path(namespace), body, KeySecret)
    except ApiError as exc:
        if not exc.is_conflict:  # else another replica was first
            raise
