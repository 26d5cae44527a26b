"""One check and its verdict, as the admin page and `tulle check` show it.

Each check has a stable code. A check that cannot be made is an error of its own, never a silent
pass. Checks repair nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    category: str
    description: str
    result: Result = Result.OK
    error: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        return {**asdict(self), "result": self.result.value}


def judged(
    code: str,
    category: str,
    description: str,
    *,
    error: str = "",
    hint: str = "",
    level: Result = Result.ERROR,
) -> Check:
    """A passed check when `error` is empty; otherwise one of `level`, with its hint."""
    if not error:
        return Check(code, category, description)
    return Check(code, category, description, level, error, hint)
