"""Answers of an API server that are not the one asked for, as exceptions with typed fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import msgspec

from control.kit.errors import ConfigError, ControlError, MeshError
from control.kube.nesting import decoded

MESSAGE_CHARS_MAX = 1024  # a proxy may answer with a page of HTML
RETRY_AFTER_S_MAX = 300.0


class AccessError(ConfigError):
    """The way to the cluster cannot be read: kubeconfig, token, certificate, exec plugin."""

    reason: ClassVar[str] = "kube_access"


class Unreachable(ControlError):
    """No answer: refused, reset, timed out, wrong certificate, or no HTTP."""

    reason: ClassVar[str] = "kube_unreachable"


class TooLargeAnswer(ControlError):
    """More bytes than this client takes for one answer."""

    reason: ClassVar[str] = "kube_too_large"


class UnreadableAnswer(ControlError):
    """A success whose body is not of the shape that was asked for."""

    reason: ClassVar[str] = "kube_unreadable"


class ApiError(ControlError):
    """The API server said no. `kind` is its reason: NotFound, Conflict, AlreadyExists, …"""

    reason: ClassVar[str] = "kube_api"

    def __init__(
        self,
        code: int,
        kind: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        token: str = "",
        causes: tuple[str, ...] = (),
        where: str = "",
    ) -> None:
        self.code, self.kind, self.message = code, kind, message[:MESSAGE_CHARS_MAX]
        self.retry_after_s = retry_after_s
        self.token = token  # to continue a list whose version is gone
        self.causes = causes
        self.where = where
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}{code} {kind}: {self.message}")

    @property
    def is_conflict(self) -> bool:
        """An object of that name is there, or it is not as the caller believed."""
        return self.code == 409

    @property
    def is_expired(self) -> bool:
        """The version, or the token of a list, is too old."""
        return self.code == 410


class EventError(ApiError):
    """An ERROR event: the server has ended a watch that had begun well."""


def nobody_answers(error: MeshError) -> bool:
    """True if the server is away, or says no more than that it cannot serve now."""
    if isinstance(error, ApiError):
        return error.code >= 500 or error.code == 429
    return isinstance(error, Unreachable)


_AnyError = TypeVar("_AnyError", bound=ApiError)


class _StatusMeta(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []
    retry_s: float | None = msgspec.field(default=None, name="retryAfterSeconds")


class _Status(msgspec.Struct):
    metadata: _StatusMeta = msgspec.field(default_factory=_StatusMeta)
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(_Status)

# Names for answers without a Status: from proxies, load balancers and the server's own filters.
_KINDS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def error_of(code: int, headers: Mapping[str, str], body: bytes, where: str = "") -> ApiError:
    """The error that an answer means, whether its body is a Status, text or nothing."""
    retry_s = _seconds(headers.get("Retry-After", ""))
    try:
        status = decoded(_STATUS.decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = " ".join(body[: 4 * MESSAGE_CHARS_MAX].decode(errors="replace").split())
        kind = _KINDS.get(code, "Unknown")
        return ApiError(code, kind, text or "no body", retry_after_s=retry_s, where=where)
    return _from_status(status, code, retry_s, where, ApiError)


def error_of_event(status: bytes, where: str = "") -> EventError:
    """The error in an ERROR event of a watch, which stands in a 200."""
    try:
        read = decoded(_STATUS.decode, status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return EventError(500, "Unknown", "an ERROR event without a Status", where=where)
    return _from_status(read, 500, None, where, EventError)


def _from_status(
    status: _Status,
    code: int,
    retry_s: float | None,
    where: str,
    error: type[_AnyError],
) -> _AnyError:
    details = status.details or _Details()
    said = details.retry_s
    if retry_s is None and said is not None and said >= 0:
        retry_s = min(float(said), RETRY_AFTER_S_MAX)
    causes = tuple(f"{each.field}: {each.message}".lstrip(": ") for each in details.causes)
    code = status.code or code
    return error(
        code,
        status.reason or _KINDS.get(code, "Unknown"),
        status.message or "no message",
        retry_after_s=retry_s,
        token=status.metadata.token,
        causes=causes,
        where=where,
    )


def _seconds(text: str) -> float | None:
    """Retry-After in whole seconds; its other form, a date, is not used by API servers."""
    found = re.fullmatch(r"[0-9]{1,9}", text.strip())
    return min(float(found[0]), RETRY_AFTER_S_MAX) if found else None
