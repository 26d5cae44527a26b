"""Credentials from a program, as kubeconfig's `exec` says: run, read its ExecCredential, remember
it until it expires."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from control.kit.children import kill_child
from control.kit.clock import Clock, SystemClock
from control.kube.credentials import Proof, bearer
from control.kube.errors import AccessError
from control.kube.trust import KeyPair, Pem

RUN_S = 60.0  # cloud plugins ask their cloud, some through a slow proxy
OUTPUT_BYTES_MAX = 1024 * 1024
STDERR_CHARS_MAX = 512
# A credential is renewed this long before its end, so that it does not end on its way.
EARLY = timedelta(seconds=30)
API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class Command:
    """`cluster` is told to the program if it asked for that (provideClusterInfo)."""

    program: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    api_version: str = API_VERSIONS[0]
    install_hint: str = ""
    cluster: Mapping[str, Any] | None = None

    def info(self) -> str:
        """The text of KUBERNETES_EXEC_INFO."""
        spec: dict[str, Any] = {"interactive": False}
        if self.cluster is not None:
            spec["cluster"] = dict(self.cluster)
        value = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": spec}
        return msgspec.json.encode(value).decode()


class _Given(msgspec.Struct):
    token: str = ""
    certificate: str = msgspec.field(default="", name="clientCertificateData")
    key: str = msgspec.field(default="", name="clientKeyData")
    expires: datetime | None = msgspec.field(default=None, name="expirationTimestamp")


class _ExecCredential(msgspec.Struct):
    api_version: str = msgspec.field(default="", name="apiVersion")
    kind: str = ""
    status: _Given | None = None


class Plugin:
    """One run at a time, and its result for everybody who waits."""

    def __init__(
        self, command: Command, env: Mapping[str, str], clock: Clock | None = None
    ) -> None:
        self._command = command
        self._env = env
        self._clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._known: tuple[Proof, datetime | None] | None = None

    async def proof(self) -> Proof:
        async with self._lock:
            if self._known is None or self._is_over(self._known[1]):
                self._known = read_credential(await self._run(), self._command)
            return self._known[0]

    def refused(self) -> None:
        self._known = None

    def _is_over(self, expires: datetime | None) -> bool:
        return expires is not None and self._clock.now() >= expires - EARLY

    async def _run(self) -> bytes:
        command = self._command
        env = {**self._env, **command.env, "KUBERNETES_EXEC_INFO": command.info()}
        program = shutil.which(command.program, path=env.get("PATH", os.defpath))
        if program is None:
            hint = f"; {command.install_hint.strip()}" if command.install_hint else ""
            raise AccessError(f"exec plugin {command.program} is not installed{hint}")
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *command.arguments,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            raise AccessError(f"exec plugin {command.program}: {exc.strerror}") from exc
        return await self._output(process)

    async def _output(self, process: asyncio.subprocess.Process) -> bytes:
        program = self._command.program
        try:
            async with asyncio.timeout(RUN_S), asyncio.TaskGroup() as tasks:
                output = tasks.create_task(_read(process.stdout), name="plugin.output")
                errors = tasks.create_task(_read(process.stderr), name="plugin.errors")
            async with asyncio.timeout(RUN_S):
                code = await process.wait()
        except TimeoutError as exc:
            raise AccessError(f"exec plugin {program}: no end within {RUN_S:.0f} s") from exc
        finally:
            kill_child(process)
        said = " ".join(errors.result().decode(errors="replace").split())[-STDERR_CHARS_MAX:]
        if code != 0:
            raise AccessError(f"exec plugin {program}: exit code {code}: {said}")
        return output.result()


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """The first part of a stream; the rest is read and thrown away, or the program would wait."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(65536)):
        kept += chunk[: OUTPUT_BYTES_MAX - len(kept)]
    return bytes(kept)


def read_credential(output: bytes, command: Command) -> tuple[Proof, datetime | None]:
    """Proof and its end, None if it has none. Raises AccessError."""
    where = f"exec plugin {command.program}"
    try:
        read = msgspec.json.decode(output, type=_ExecCredential)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise AccessError(f"{where}: its output is no ExecCredential: {exc}") from exc
    if read.kind != "ExecCredential" or read.api_version != command.api_version:
        raise AccessError(
            f"{where}: wrote {read.api_version} {read.kind}, not {command.api_version} "
            "ExecCredential"
        )
    given = read.status or _Given()
    if bool(given.certificate) != bool(given.key):
        raise AccessError(f"{where}: a certificate without a key, or a key without a certificate")
    if not given.token and not given.certificate:
        raise AccessError(f"{where}: gave neither a token nor a certificate")
    own = None
    if given.certificate:
        own = KeyPair(Pem(given.certificate.encode()), Pem(given.key.encode()))
    authorization = bearer(given.token, where).authorization if given.token else ""
    expires = given.expires
    if expires is not None and expires.tzinfo is None:
        raise AccessError(f"{where}: expirationTimestamp has no time zone")
    return Proof(authorization, own), expires
