"""Word of a source: its objects are those of the moment at which they were asked for."""

from __future__ import annotations

from control.server.sources.folder import Folder
from tests.support.manifests import pod


def test_objects_stay_as_they_were_when_they_were_asked_for() -> None:
    folder = Folder()
    folder.load("a.yaml", pod("a").encode())
    first = folder.snapshot()
    assert first.is_whole
    assert len(first.objects.pods) == 1
    folder.load("b.yaml", pod("b").encode())
    second = folder.snapshot()
    assert not second.is_whole
    assert [key.name for key in second.changed] == ["b"]
    assert len(first.objects.pods) == 1
    assert second.counts()["Pod"] == len(second.objects.pods) == 2
