"""Troubles that a test switches on, and the list of what was asked."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.kube.status import ApiRefusal

REQUESTS_MAX = 100_000  # remembered


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    words: tuple[str, ...] = ()  # the command for a container

    @property
    def is_watch(self) -> bool:
        return self.params.get("watch") in ("true", "1")

    def __str__(self) -> str:
        return f"{'WATCH' if self.is_watch else self.method} {self.path}"


@dataclass(slots=True)
class Fault:
    """Befalls requests whose `METHOD /path` (`WATCH /path` for a watch) the pattern matches.

    `refusal`: this answer. `after_s`: the answer comes that late. `cut`: the connection ends
    without an answer, or, with `cut_at`, after so many bytes of it. `silent`: no answer at all
    until the client goes. `is_done`: the request is carried out before the trouble.
    """

    pattern: str
    refusal: ApiRefusal | None = None
    after_s: float = 0.0
    cut: bool = False
    cut_at: int = 0
    silent: bool = False
    is_done: bool = False
    times: int = 1_000_000_000
    hits: int = 0

    def befalls(self, request: Request) -> bool:
        if self.hits >= self.times or not re.fullmatch(self.pattern, str(request)):
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class Faults:
    active: list[Fault] = field(default_factory=list)
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_MAX))

    def of(self, request: Request) -> Fault | None:
        self.requests.append(request)
        return next((each for each in list(self.active) if each.befalls(request)), None)

    def count(self, pattern: str) -> int:
        """Number of requests so far that the pattern matches."""
        return sum(re.fullmatch(pattern, str(each)) is not None for each in list(self.requests))
