"""Changes beside a state: in order, up to the first that cannot be read."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources.changes_file import ChangesFile, ChangesRecord
from control.server.sources.objects import Key, Objects

KEYS = [Key("Pod", "shop", name) for name in "abc"]
WHOLE = 10**6


def encode(put: Objects, gone: list[tuple[str, str, str]]) -> bytes:
    return msgspec.msgpack.encode(ChangesRecord(put, gone))


def made(path: Path) -> ChangesFile:
    file = ChangesFile(path)
    file.begin("base")
    for key in KEYS:
        file.add({key: None}, encode)
    return file


def test_they_come_in_order_and_belong_to_one_state(tmp_path: Path) -> None:
    file = made(tmp_path / "changes")
    assert list(file.read("base", WHOLE)) == [{key: None} for key in KEYS]
    assert list(file.read("another", WHOLE)) == []
    file.begin("another")
    assert list(file.read("another", WHOLE)) == []
    assert (tmp_path / "changes").stat().st_mode & 0o777 == 0o600


@given(st.integers(0, 400))
def test_a_file_that_was_cut_anywhere_has_what_is_whole(size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changes"
        file = made(path)
        path.write_bytes(path.read_bytes()[:size])
        found = list(file.read("base", WHOLE))
    assert found == [{key: None} for key in KEYS[: len(found)]]
