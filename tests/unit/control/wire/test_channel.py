"""A node's way to the control plane: its token, read each time, and a lazy channel."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control.server.ca.authority import new_authority
from control.wire.channel import (
    TOKEN_BYTES_MAX,
    TokenUnreadable,
    bearer,
    holds_roots,
    open_channel,
    read_token,
    target_of,
)


def test_a_token_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    assert read_token(path) == "one"
    path.write_text("  two  ")
    assert read_token(path) == "two"
    assert bearer("two") == ("authorization", "Bearer two")


@pytest.mark.parametrize("data", [None, b"\xff\xfe"], ids=["absent", "not ascii"])
def test_a_token_that_cannot_be_read_says_where(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "token"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TokenUnreadable, match=f"^{path}: [Nn]o ") as refused:
        read_token(path)
    assert str(refused.value).count(str(path)) == 1
    assert refused.value.reason == "token_unreadable"


def test_a_file_that_is_no_token_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"x" * (TOKEN_BYTES_MAX + 10))
    assert len(read_token(path)) == TOKEN_BYTES_MAX


ROOT = new_authority("cluster.local", datetime(2026, 1, 1, tzinfo=UTC)).root_pem.encode()


@pytest.mark.parametrize(
    ("pem", "holds"),
    [
        (ROOT, True),
        (b"# \xc3\x84rzte\n" + ROOT + b"-----BEGIN CERTIFICATE-----\n!\n", True),
        (b"", False),
        (b"# Tulle \xe2\x80\xa6\n", False),
        (b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", False),
        (ROOT.replace(b"CERTIFICATE", b"PUBLIC KEY"), False),
    ],
)
def test_a_file_of_something_else_holds_no_roots(pem: bytes, holds: bool) -> None:
    assert holds_roots(pem) is holds


@pytest.mark.parametrize("name", ["", "control.example"])
def test_a_channel_is_opened_without_anybody_at_the_other_end(name: str) -> None:
    async def scenario() -> None:
        async with open_channel("127.0.0.1:9", None, name):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("10.0.0.1:15012", "10.0.0.1:15012"),
        ("[10.0.0.1]:15012", "10.0.0.1:15012"),
        ("[fd00::1]:15012", "[fd00::1]:15012"),
        ("control.example:15012", "control.example:15012"),
    ],
)
def test_brackets_around_an_address_of_either_family(given: str, target: str) -> None:
    assert target_of(given) == target
