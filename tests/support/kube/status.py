"""Refusals of an API server, worded as Kubernetes 1.36 words them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

GONE = "The resourceVersion for the provided list is too old."
GONE_PAGE = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You can start a new list without the continue parameter, or use the continue token in this "
    "response to retrieve the remainder of the results. Continuing with the provided token "
    "results in an inconsistent list - objects that were created, modified, or deleted between "
    "the time the first chunk was returned and now may show up in the list."
)
MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class ApiRefusal(Exception):
    """An answer that is no success: `body` is a Status object, or text for the few that are."""

    def __init__(self, code: int, body: Json | str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{code} {body if isinstance(body, str) else body['message']}")
        self.code = code
        self.body = body
        self.headers = headers or {}

    def encoded(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    @property
    def content_type(self) -> str:
        return "text/plain; charset=utf-8" if isinstance(self.body, str) else "application/json"


def refusal(code: int, reason: str, message: str, **details: Any) -> ApiRefusal:
    """`continues` goes into the body's metadata, everything else into its details."""
    metadata = {"continue": details.pop("continues")} if "continues" in details else {}
    body: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata,
        "status": "Failure",
        "message": message,
        "reason": reason,
        **({"details": details} if details else {}),
        "code": code,
    }
    headers = {}
    if "retryAfterSeconds" in details:
        headers["Retry-After"] = str(details["retryAfterSeconds"])
    return ApiRefusal(code, body, headers)


def invalid(group: str, kind: str, name: str, field: str, said: str, why: str) -> ApiRefusal:
    """422: one field is not right. `why` is the cause's reason."""
    full = f"{kind}.{group}" if group else kind
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    return refusal(
        422,
        "Invalid",
        f'{full} "{name}" is invalid: {field}: {said}',
        **details,
        kind=kind,
        causes=[{"reason": why, "message": said, "field": field}],
    )


def not_there() -> ApiRefusal:
    """A path that no resource has: not even a Status."""
    return ApiRefusal(404, "404 page not found\n", {"X-Content-Type-Options": "nosniff"})


def too_many(after_s: int) -> ApiRefusal:
    text = "Too many requests, please try again later.\n"
    headers = {"Retry-After": str(after_s), "X-Content-Type-Options": "nosniff"}
    return ApiRefusal(429, text, headers)


def unauthorized() -> ApiRefusal:
    return refusal(401, "Unauthorized", "Unauthorized")


def too_new(wanted: int, newest: int) -> ApiRefusal:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {wanted}, current: {newest}"
    return refusal(504, "Timeout", message, causes=[cause], retryAfterSeconds=1)


def expired_event(wanted: int, oldest: int) -> Json:
    """Body of the one ERROR line of a watch from a version that is forgotten."""
    body = refusal(410, "Expired", f"too old resource version: {wanted} ({oldest})").body
    assert isinstance(body, dict)
    return body
