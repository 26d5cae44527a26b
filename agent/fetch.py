"""HTTP over a unix socket to the admin pages of a node. Fetches; never decides or prints."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from control.kit.errors import MeshError

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024  # a dump of a large mesh; more is not an admin page


class FetchError(MeshError):
    """An admin socket that cannot be used; the message names the socket and what was asked."""

    reason = "admin"

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status  # of the HTTP answer; 0 when there was none


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    path: Path,
    method: str,
    target: str,
    body: Any = None,
    *,
    query: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """One request; FetchError when there is no answer at all, PermissionError when we may not."""
    full = f"{target}?{urlencode(query)}" if query else target
    connection = _UnixConnection(path, timeout_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data is not None else {}
        connection.request(method, full, data, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(ANSWER_BYTES_MAX))
    except PermissionError as exc:
        raise PermissionError(exc.errno, exc.strerror, str(path)) from exc  # nobody is away
    except (OSError, http.client.HTTPException) as exc:
        raise FetchError(f"{method} {target} on {path}: {_why(exc)}") from exc
    finally:
        connection.close()


def get_json(path: Path, target: str, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON of a page; FetchError when it is not there."""
    return checked(request(path, "GET", target, timeout_s=timeout_s), f"GET {target} on {path}")


def checked(answer: Answer, what: str) -> Any:
    """The answer's JSON, or FetchError with the reason that the server gave."""
    try:
        value = answer.json() if answer.body else None
    except ValueError:
        value = None
    if answer.status >= 400:
        told = (
            value.get("error")
            if isinstance(value, dict)
            else answer.body[:200].decode("utf-8", "replace")
        )
        raise FetchError(f"{what}: {answer.status} {told or ''}".rstrip(), answer.status)
    return value


def _why(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "no such socket: is it running?"
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens: it was stopped or has crashed"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return str(exc)
