"""Programs and links, on whatever rights the test has."""

from __future__ import annotations

import os

import pytest

from agent.datapath import attach
from agent.datapath.attach import Program
from agent.datapath.errors import NotPermitted, ProgramRejected

SOCK_ADDR, CONNECT4 = 18, 10


def test_code_that_is_none_is_refused_with_a_reason() -> None:
    with pytest.raises((ProgramRejected, NotPermitted)) as refused:
        Program.load(SOCK_ADDR, CONNECT4, b"\xff" * 16, name="test")
    if os.geteuid() == 0:
        assert refused.value.reason == "program_rejected"
        assert "not an exit" in refused.value.verifier_log


def test_a_refusal_says_why_and_leads_to_the_log() -> None:
    log = "0: R1=ctx() R10=fp0\n1: (61) r0 = *(u32 *)(r1 +0)\nmodified ctx ptr\nprocessed 2 insns"
    refused = ProgramRejected("program sockops", 13, log)
    assert str(refused) == (
        "program sockops: EACCES (Permission denied); modified ctx ptr; "
        "`tulle check --pre` shows the verifier's log"
    )
    assert refused.verifier_log == log
    assert str(ProgramRejected("program x", 13, "")).count(";") == 1


def test_every_link_is_listed_once() -> None:
    try:
        ids = [link.id for link in attach.links()]
    except NotPermitted:
        return
    assert len(ids) == len(set(ids))


def test_a_program_that_is_not_loaded_is_none() -> None:
    try:
        assert attach.program_by_id(2**31 - 1) is None
    except NotPermitted:
        pass
