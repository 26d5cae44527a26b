"""Base of the tables of stable reasons: each has a word for logs and metrics, and a meaning."""

from __future__ import annotations

from enum import Enum


class WordedReason(Enum):
    """Members are (word, meaning); docs/refusals.md is made from them."""

    word: str
    meaning: str

    def __init__(self, word: str, meaning: str) -> None:
        self.word = word
        self.meaning = meaning

    def __str__(self) -> str:
        return self.word
