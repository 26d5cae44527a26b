"""Errors, by the side that is at fault; each class has one stable `reason` (log field, metric
label)."""

from __future__ import annotations

from typing import ClassVar


class MeshError(Exception):
    """The world misbehaved in a way we know. A bug is never a MeshError."""

    reason: ClassVar[str] = "unknown"


class PeerError(MeshError):
    """The other end of a connection: certificate, preface, early close."""

    reason = "peer"


class KernelError(MeshError):
    """A program was rejected, a map is full, a capability or a hook is missing."""

    reason = "kernel"


class ControlError(MeshError):
    """The control plane is away or wrong: keep the last good state and go on."""

    reason = "control"


class ConfigError(MeshError):
    """The operator's input cannot be used; the message names file, line and object or flag."""

    reason = "config"


class WireError(PeerError):
    """A message that breaks its protocol."""

    reason = "wire"


def os_error_text(exc: OSError) -> str:
    """The kernel's refusal as an operator reads it: the file, if there is one, and the reason."""
    said = exc.strerror or str(exc)
    return f"{exc.filename}: {said}" if exc.filename else said
