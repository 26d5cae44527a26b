"""The list of namespaces, in memory and on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.cni import namespaces
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


def test_a_copy_that_cannot_follow_never_lets_a_pod_of_the_mesh_start_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a namespace that was outside is so for the plugin until there is room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "namespaces"
    first = NamespaceBook(path)
    first.changed(told(shop=False, plain=False, old=True), ())
    subject = NamespaceBook(path)
    subject.load()
    with monkeypatch.context() as patch:
        patch.setattr(namespaces, "write_atomic", full)
        subject.changed(told(shop=False, plain=False), ())
        assert parse(path.read_bytes()) == {"shop": False, "plain": False, "old": True}
        subject.changed(told(shop=True), ())
        assert not path.exists()
        subject.changed(told(plain=True), ())
    subject.changed(told(new=False), ())
    assert parse(path.read_bytes()) == {"shop": True, "plain": True, "new": False}


def test_a_namespace_that_is_gone_is_outside_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one of its name may be anything."""

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    subject = NamespaceBook(tmp_path / "namespaces")
    subject.changed(told(shop=False), ())
    monkeypatch.setattr(namespaces, "write_atomic", broken)
    subject.changed({}, ["shop"])
    assert not (tmp_path / "namespaces").exists()
