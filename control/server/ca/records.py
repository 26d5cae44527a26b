"""The record of a change of roots, in a Secret of ours that all replicas share.

Whoever may write Secrets of this namespace may replace the CA as well, so it is as safe as that.
"""

from __future__ import annotations

import base64
import binascii
import logging
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import SECRETS
from control.server.ca.rotation import Rotation
from control.server.ca.secret import SecretObject

log = logging.getLogger("ca")

RECORD_NAME: Final = "tulle-ca-rotation"
RECORD_KEY: Final = "rotation.json"


@dataclass(slots=True)
class RotationRecords:
    """Without the right to it there is no record: a new root signs at once then."""

    client: KubeClient
    namespace: str
    _version: str = ""  # as it was read last
    _is_shut: bool = False

    async def read(self) -> Rotation | None:
        """None: there is none yet, or one that somebody has broken."""
        self._version = ""
        where = f"Secret {self.namespace}/{RECORD_NAME}"
        try:
            found = await self.client.get(SECRETS.path(self.namespace, RECORD_NAME), SecretObject)
        except ApiError as exc:
            if exc.code not in (403, 404):
                raise
            if exc.code == 403 and not self._is_shut:
                event(log, logging.ERROR, "ca.no_record", secret=where, error=exc)
            self._is_shut = exc.code == 403
            return None
        self._version, self._is_shut = found.metadata.version, False
        try:
            text = base64.b64decode((found.data or {}).get(RECORD_KEY, ""), validate=True)
            return msgspec.json.decode(text, type=Rotation)
        except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            event(log, logging.ERROR, "ca.record_broken", secret=where, error=exc)
            return None

    async def write(self, record: Rotation) -> bool:
        """False: another replica was faster, so it has to be read again."""
        if self._is_shut:
            return True
        metadata: dict[str, Any] = {
            "name": RECORD_NAME,
            "labels": {"app.kubernetes.io/managed-by": "tulle-control"},
        }
        if self._version:
            metadata["resourceVersion"] = self._version
        text = base64.b64encode(msgspec.json.encode(record)).decode()
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": metadata,
            "data": {RECORD_KEY: text},
        }
        path = SECRETS.path(self.namespace, RECORD_NAME)
        try:
            if self._version:
                await self.client.put(path, body, SecretObject)
            else:
                await self.client.create(SECRETS.path(self.namespace), body, SecretObject)
        except ApiError as exc:
            if exc.is_conflict:
                return False
            raise
        return True
