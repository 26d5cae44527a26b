"""Commands in pods against the small API server's websocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.commands import Ended, run_in_pod
from control.kube.errors import ApiError, TooLargeAnswer, Unreachable, UnreadableAnswer
from control.kube.trust import Trust
from tests.support.kube.commands import Command, Result
from tests.support.kube.server import serving
from tests.support.kube.status import refusal


def ended(act: Callable[[Command], Result], bytes_max: int = 1 << 20) -> Ended:
    async def main(url: str) -> Ended:
        async with KubeClient(ClusterAccess(url, Trust())) as client:
            words = ("echo", "a b", "--x=ü")
            return await run_in_pod(client, "ns", "pod", "box", words, 5, bytes_max)

    with serving() as kube:
        kube.commands = act
        return asyncio.run(main(kube.url))


def test_output_errors_and_exit_code_of_a_command() -> None:
    asked: list[Command] = []

    def act(command: Command) -> Result:
        asked.append(command)
        return Result(3, b"x" * 100_000, b"oh\nno\n")

    assert ended(act) == Ended(3, b"x" * 100_000, "oh\nno")
    assert asked == [Command("ns", "pod", "box", ("echo", "a b", "--x=ü"))]


def test_a_command_that_does_well_has_code_0() -> None:
    assert ended(lambda _command: Result(0, b"{}")) == Ended(0, b"{}", "")


def test_a_refusal_has_its_code() -> None:
    def act(_command: Command) -> Result:
        raise refusal(403, "Forbidden", "no pods/exec for you")

    with pytest.raises(ApiError) as refused:
        ended(act)
    assert refused.value.code == 403


def test_a_connection_that_ends_early_is_no_success() -> None:
    with pytest.raises(Unreachable, match=r"ended before the command \(last words\)"):
        ended(lambda _command: Result(0, b"half", b"last words", lost=True))


def test_output_has_a_bound() -> None:
    with pytest.raises(TooLargeAnswer):
        ended(lambda _command: Result(0, b"x" * 2000), bytes_max=1000)


def test_a_command_that_could_not_start_is_told() -> None:
    with pytest.raises(UnreadableAnswer, match="no such file"):
        ended(lambda _command: Result(-1, b"", b"exec: no such file"))
