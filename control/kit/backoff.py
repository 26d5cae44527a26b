"""Back-off: the pause before the next try. Decides only; never sleeps."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential with jitter: `initial_s` doubling to `max_s`, each spread by ± `jitter`."""

    initial_s: float
    max_s: float
    jitter: float = 0.2
    random: random.Random = field(default_factory=random.Random)
    _next_s: float = 0.0

    def next_s(self) -> float:
        base = self._next_s or self.initial_s
        self._next_s = min(base * 2, self.max_s)
        return base * self.random.uniform(1 - self.jitter, 1 + self.jitter)

    def reset(self) -> None:
        self._next_s = 0.0
