"""HTTP requests to admin sockets. Fetches pages; never judges or prints them."""

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
# A page without work behind it comes in milliseconds; a process that takes longer is stopped or
# stuck, and its other pages need not be waited for.
SIGN_OF_LIFE_S = 2.0
NO_ANSWER = "no answer in time"
ANSWER_BYTES_MAX = 256 * 1024 * 1024  # a dump of a large mesh; more is not an admin page


class FetchError(MeshError):
    """A request without a usable answer; the message names the socket and the request."""

    reason = "admin"

    def __init__(self, message: str, status: int = 0, why: str = "") -> None:
        super().__init__(message)
        self.status = status  # HTTP status; 0 without an answer
        self.why = why or message  # without the names of socket and page


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
    """Send one request. FetchError: no answer at all; PermissionError: no right to the socket."""
    full = f"{target}?{urlencode(query)}" if query else target
    connection = _UnixConnection(path, timeout_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data is not None else {}
        connection.request(method, full, data, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.read(ANSWER_BYTES_MAX))
        if response.length:  # read() with a bound accepts an answer that ends too early
            raise http.client.IncompleteRead(answer.body, response.length)
        return answer
    except PermissionError as exc:
        raise PermissionError(exc.errno, exc.strerror, str(path)) from exc  # the server may be well
    except (OSError, http.client.HTTPException) as exc:
        why = _why(exc)
        raise FetchError(f"{method} {target} on {path}: {why}", why=why) from exc
    finally:
        connection.close()


def get_json(path: Path, target: str, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON of a page; FetchError without a good answer."""
    return checked(request(path, "GET", target, timeout_s=timeout_s), f"GET {target} on {path}")


def checked(answer: Answer, what: str) -> Any:
    """The answer's JSON; FetchError with the server's own reason for a status of 400 or more."""
    try:
        value = answer.json() if answer.body else None
    except ValueError:
        value = None
    if answer.status >= 400:
        reason = (
            value.get("error")
            if isinstance(value, dict)
            else answer.body[:200].decode("utf-8", "replace")
        )
        raise FetchError(f"{what}: {answer.status} {reason or ''}".rstrip(), answer.status)
    return value


def _why(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "no such socket: is it running?"
    if isinstance(exc, ConnectionRefusedError):
        return "nothing listens: it was stopped or has crashed"
    if isinstance(exc, TimeoutError):
        return NO_ANSWER
    if isinstance(exc, BlockingIOError):  # earlier callers still wait to be accepted
        return "takes no more connections: it is stopped or stuck"
    return str(exc)
