"""The list of namespaces, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cni.namespaces import NamespaceBook, parse, render
from control.model.intent import NamespaceIntent


def told(**enrols: bool) -> dict[str, NamespaceIntent]:
    return {name: NamespaceIntent(name, value) for name, value in enrols.items()}


def test_what_is_written_is_read() -> None:
    data = render({"shop": True, "plain": False})
    assert data == b"tulle namespaces 1\n-plain\n+shop\nend\n"
    assert parse(data) == {"shop": True, "plain": False}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"tulle namespaces 1\n",
        b"tulle namespaces 2\n+a\nend\n",
        b"tulle namespaces 1\n+a\n",
        b"tulle namespaces 1\n+a\nend",
        b"tulle namespaces 1\n?a\nend\n",
        b"tulle namespaces 1\n+\nend\n",
        b"tulle namespaces 1\n+a\nend\nend\n+b\n",
        b"\xff",
    ],
)
def test_what_is_not_whole_is_not_read(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse(data)


def test_every_beginning_of_a_file_is_refused() -> None:
    whole = render({"shop": True, "plain": False})
    for size in range(len(whole)):
        with pytest.raises(ValueError):
            parse(whole[:size])


def test_the_copy_counts_until_the_control_plane_speaks(tmp_path: Path) -> None:
    path = tmp_path / "state" / "n1" / "namespaces"
    first = NamespaceBook(path)
    first.load()
    assert not first.is_written
    first.changed(told(shop=True, plain=False, old=False), [])
    assert first.is_written
    again = NamespaceBook(path)
    again.load()
    assert again.is_outside("plain")
    assert not again.is_outside("shop")
    assert not again.is_outside("unknown")
    again.changed(told(shop=False), [])
    assert again.is_outside("shop")
    assert not again.is_outside("old"), "it may have been deleted meanwhile"
    again.changed({}, ["shop"])
    assert again.counts() == (0, 0)
    assert parse(path.read_bytes()) == {}


def test_a_broken_copy_says_nothing_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "namespaces"
    path.write_bytes(b"tulle namespaces 1\n-shop\n")
    book = NamespaceBook(path)
    book.load()
    assert not book.is_written
    assert not book.is_outside("shop")
    book.changed(told(shop=True), [])
    assert parse(path.read_bytes()) == {"shop": True}


def test_a_disk_that_takes_nothing_ends_nothing_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    book = NamespaceBook(tmp_path / "state" / "namespaces")
    book.changed(told(shop=True, plain=False), [])
    assert not book.is_written
    assert book.is_outside("plain"), "in memory it counts"
    (tmp_path / "state").unlink()
    book.changed({}, [])
    assert book.is_written
