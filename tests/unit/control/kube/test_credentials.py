"""Tokens and passwords as headers; none of them in a repr."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.kube.credentials import (
    TOKEN_BYTES_MAX,
    Anonymous,
    Password,
    Proof,
    Token,
    TokenFile,
    bearer,
)
from control.kube.errors import AccessError


def test_each_kind_of_header() -> None:
    assert asyncio.run(Anonymous().proof()) == Proof()
    assert asyncio.run(Token(" abc\n").proof()).authorization == "Bearer abc"
    assert asyncio.run(Password("u", "p").proof()).authorization == "Basic dTpw"


def test_a_refused_token_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    credentials = TokenFile(path)
    asyncio.run(credentials.proof())
    with open(path, "r+") as file:  # the same size and, on a coarse clock, the same time
        file.write("two")
    credentials.refused()
    assert asyncio.run(credentials.proof()).authorization == "Bearer two"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"a\nb", b"\xff\xff", b"a" * 70000])
def test_a_file_without_a_token_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessError, match="token file"):
        asyncio.run(TokenFile(path).proof())


def test_a_proof_shows_no_secret() -> None:
    assert "secret" not in repr(bearer("secret", "here"))
    assert len("a" * TOKEN_BYTES_MAX) < len(bearer("a" * TOKEN_BYTES_MAX, "").authorization)
