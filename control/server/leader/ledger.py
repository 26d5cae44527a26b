"""Wanted and written: decides what is to be written next. Pure.

Values are compared, so what is as it should be costs no write. A write that failed is tried again
later and later; one that the API server will never take waits until something else is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

RETRY_S: Final = 2.0
RETRY_S_MAX: Final = 300.0


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An object of the API. `namespace` is empty for kinds without one; `uid` is for objects of
    others, which may be deleted and made anew under their name."""

    kind: str
    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}".replace(" /", " ")


@dataclass(slots=True)
class _Failure(Generic[T]):
    value: T | None
    until_s: float
    wait_s: float


class WriteLedger(Generic[T]):
    """`removes`: what is written and no longer wanted is to be removed (value None)."""

    def __init__(self, *, removes: bool) -> None:
        self._removes = removes
        self._wanted: Mapping[Target, T] = {}
        self._written: dict[Target, T] = {}
        self._failures: dict[Target, _Failure[T]] = {}

    def want(self, wanted: Mapping[Target, T]) -> None:
        self._wanted = wanted
        for target in [each for each in self._failures if each not in wanted]:
            if target not in self._written:
                del self._failures[target]

    def saw(self, written: Mapping[Target, T]) -> None:
        """All that there is, as it was found just now."""
        self._written = dict(written)

    def due(self, now_s: float) -> Iterator[tuple[Target, T | None]]:
        for target, value in list(self._wanted.items()):
            if self._written.get(target) != value and self._may(target, value, now_s):
                yield target, value
        if self._removes:
            for target in [each for each in self._written if each not in self._wanted]:
                if self._may(target, None, now_s):
                    yield target, None

    def _may(self, target: Target, value: T | None, now_s: float) -> bool:
        failure = self._failures.get(target)
        return failure is None or failure.value != value or now_s >= failure.until_s

    def done(self, target: Target, value: T | None) -> None:
        self._failures.pop(target, None)
        if value is None:
            self._written.pop(target, None)
        else:
            self._written[target] = value

    def failed(self, target: Target, value: T | None, now_s: float, wait_s: float = 0.0) -> bool:
        """Try again after `wait_s` at least; True for the first failure of this value."""
        known = self._failures.get(target)
        is_new = known is None or known.value != value
        next_s = RETRY_S if known is None or is_new else min(known.wait_s * 2, RETRY_S_MAX)
        self._failures[target] = _Failure(value, now_s + max(next_s, wait_s), next_s)
        return is_new
