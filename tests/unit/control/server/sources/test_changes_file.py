"""Changes beside a state: in order, up to the first that cannot be read."""

from __future__ import annotations

from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control.server.sources.changes_file import CHUNK, ChangesFile, ChangesRecord
from control.server.sources.objects import Key

KEYS = [Key("Pod", "shop", name) for name in "abc"]
WHOLE = 10**6


def encode(record: ChangesRecord) -> bytes:
    return msgspec.msgpack.encode(record)


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


def test_a_large_change_is_packed_in_parts_and_counts_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "changes"
    file = made(path)
    size, packed = file.size, list[int]()

    def count(record: ChangesRecord) -> bytes:
        packed.append(len(record.put) + len(record.gone))
        return encode(record)

    large = {Key("Pod", "shop", f"p{number}"): None for number in range(2 * CHUNK + 1)}
    file.add(large, count)
    assert packed == [CHUNK, CHUNK, 1]
    assert list(file.read("base", WHOLE))[-1] == large
    assert file.size == len(path.read_bytes()) - len("base\n")
    file.add({KEYS[0]: None}, encode)
    whole = path.read_bytes()
    for cut in (1, file.size - size - 1):
        path.write_bytes(whole[:-cut])
        assert large not in list(file.read("base", WHOLE))[len(KEYS) + 1 :]
    path.write_bytes(whole[: size + len("base\n") + 5000])
    assert list(file.read("base", WHOLE)) == [{key: None} for key in KEYS]


def test_records_of_an_older_control_plane_are_changes_of_their_own(tmp_path: Path) -> None:
    file = made(tmp_path / "changes")
    file.add({KEYS[0]: None}, lambda each: msgspec.msgpack.encode([each.put, each.gone]))
    assert list(file.read("base", WHOLE))[-1] == {KEYS[0]: None}
