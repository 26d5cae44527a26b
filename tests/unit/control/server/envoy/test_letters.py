from __future__ import annotations

from collections.abc import Callable

import pytest

from control.server.envoy import letters


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (letters.header_name, ["x-a", "X_A", "a.b"], ["", "a b", ":path", "é", "a\n"]),
        (letters.changeable, ["x-a"], ["Host", "host", ":authority"]),
        (letters.method, ["GET", "M-SEARCH"], ["", "GET /"]),
        (letters.value, ["", "a b", "é%"], ["a\nb", "\r", "\x00"]),
        (letters.prefix, ["/a", "/a/b", "/a//b"], ["", "/", "a", "/a/", "/a?b", "/a#"]),
        (letters.host, ["a.b", "*.a", "*", "a:80", "[::1]"], ["", "a*", "*.*", "a b", "*."]),
    ],
)
def test_what_envoy_takes(check: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert check(text) == text
    for text in bad:
        with pytest.raises(letters.Unspeakable):
            check(text)
