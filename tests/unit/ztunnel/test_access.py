"""Access to the control plane: roots and tokens, as they are at each use."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ControlError
from control.wire.channel import TokenUnreadable
from tests.support.certificates import make_authority
from ztunnel.access import RootsUnreadable, call_metadata, roots_pem
from ztunnel.config import LiteralToken

ROOT, OTHER = (make_authority(name).pem.decode() for name in ("one", "two"))


def test_roots_are_read_again_at_each_use(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    with pytest.raises(RootsUnreadable) as caught:
        roots_pem(str(path))
    assert isinstance(caught.value, ControlError), "it may come later: try again"
    path.write_text("# Tulle")
    with pytest.raises(RootsUnreadable, match=f"no root certificate in PEM: {path}"):
        roots_pem(str(path))
    for content in (ROOT, OTHER):
        path.write_text(content)
        assert roots_pem(str(path)) == content.encode()


def test_roots_of_the_system_and_roots_given_as_text() -> None:
    assert roots_pem("SYSTEM") is None
    assert roots_pem(ROOT) == ROOT.encode()


def test_a_token_is_read_again_at_each_call(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(TokenUnreadable):
        call_metadata(path, "k")
    for content in ("one\n", "two"):
        path.write_text(content)
        assert call_metadata(path, "k") == (
            ("authorization", f"Bearer {content.strip()}"),
            ("clusterid", "k"),
        )


def test_a_call_without_a_token_says_its_cluster_alone() -> None:
    assert call_metadata(None, "k") == (("clusterid", "k"),)
    assert call_metadata(LiteralToken("secret"), "k")[0] == ("authorization", "Bearer secret")
