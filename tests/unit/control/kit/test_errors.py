"""Errors by whose fault: reasons are stable, and no two classes share one."""

from __future__ import annotations

import pytest

from control.kit import errors
from control.kit.errors import MeshError, os_error_text


def family(kind: type[MeshError]) -> set[type[MeshError]]:
    return {kind}.union(*(family(each) for each in kind.__subclasses__()))


KIT = sorted(
    (each for each in family(MeshError) if each.__module__ == errors.__name__),
    key=lambda kind: kind.__name__,
)


def test_each_class_has_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in KIT]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", KIT)
def test_a_reason_can_be_a_label_of_a_metric(kind: type[MeshError]) -> None:
    assert kind.reason.isascii()
    assert kind.reason.replace("_", "").isalpha()
    assert kind.reason.islower()


def test_a_message_that_breaks_its_protocol_is_the_peers_fault() -> None:
    assert issubclass(errors.WireError, errors.PeerError)
    assert not issubclass(MeshError, (ValueError, OSError)), "a bug or the kernel is none of these"


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/proc/x"), "/proc/x: No such file or"),
        (OSError(98, "Address already in use"), "Address already in use"),
        (TimeoutError("gRPC takes no connection"), "gRPC takes no connection"),
    ],
)
def test_the_kernels_refusal_in_words(exc: OSError, text: str) -> None:
    assert os_error_text(exc).startswith(text)
    assert "Errno" not in os_error_text(exc)
