"""The tables of refusal reasons: complete, in use, and what docs/refusals.md says.

`python -m tests.unit.test_refusals` writes the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.datapath.refusals import REFUSALS
from agent.direct.reasons import MEANINGS
from agent.kubelet.reasons import Unrecognised
from control.kit.page_refusals import PageRefusal
from control.server.callers.refusals import CallRefusal
from ztunnel.refusals import Reason

AnyKind = type[Reason] | type[CallRefusal] | type[PageRefusal]
KINDS = [(Reason, "ztunnel"), (CallRefusal, "control/server"), (PageRefusal, "control/kit")]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "refusals.md"
HEAD = """\
# Reasons for refusals

Every refusal has one stable word: in the log line's `reason`, in the metric's label, and here. Made
from the tables in the code by `python -m tests.unit.test_refusals`.
"""


def page() -> str:
    connections = [(each.word, each.flag.value, each.meaning) for each in Reason]
    calls = [(each.word, each.meaning) for each in CallRefusal]
    parts = [
        HEAD,
        "## Connections\n",
        "`tulle_ztunnel_refusals_total{reason}`. The flag is `response_flags` of Istio's metrics.",
        "Two reasons have another flag at times: `connect_failed` after a time-out towards another",
        "node NETWORK_POLICY, and `status_4xx` for a 401 DENY.\n",
        *table(("reason", "flag", "meaning"), connections),
        "\n## Connections, by the kernel\n",
        "`tulle_agent_kernel_events_total{event}`. The agent writes the lines, every two seconds:",
        "for those of a SYN `access connection refused`, with both addresses, the pod and how many",
        "there were, for the others `kernel.refused_connections`. `src.network=host`: sent",
        "from the host's network, as by pods with `hostNetwork`, which have no identity there.\n",
        *table(("reason", "meaning"), [(e.name.lower(), text) for e, text in REFUSALS.items()]),
        "\n## Calls to the control plane\n",
        "`tulle_control_refused_total{method, reason}`, and for certificates",
        "`tulle_control_csr_total{result, reason}`.\n",
        *table(("reason", "meaning"), calls),
        "\n## Admin, metrics and readiness pages\n",
        "`tulle_ztunnel_http_refused_total{door, reason}`, and the same of `tulle_agent` and",
        "`tulle_control`.\n",
        *table(("reason", "meaning"), [(each.word, each.meaning) for each in PageRefusal]),
        "\n## Nothing goes direct\n",
        "`direct.reason` of the agent's status: why the kernel carries no connection by itself.\n",
        *table(("reason", "meaning"), sorted(MEANINGS.items())),
        "\n## No kubelet is recognised\n",
        "`kubelet.reason` of the agent's status: why probes do not pass under STRICT.\n",
        *table(
            ("reason", "meaning", "remedy"),
            [(each.word, each.meaning, each.remedy) for each in Unrecognised],
        ),
    ]
    return "\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *((f"`{word}`", *rest) for word, *rest in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.unit.test_refusals"


@pytest.mark.parametrize("kind", [Reason, CallRefusal, PageRefusal])
def test_a_word_is_its_name_and_stands_once(kind: AnyKind) -> None:
    assert [each.word for each in kind] == [each.name.lower() for each in kind]
    assert [str(each) for each in kind] == [each.word for each in kind]
    meanings = [each.meaning for each in kind]
    assert len(set(meanings)) == len(meanings)
    assert all(each and each[0].islower() and not each.endswith(".") for each in meanings)


@pytest.mark.parametrize(("kind", "folder"), KINDS)
def test_every_reason_is_given_somewhere(kind: AnyKind, folder: str) -> None:
    sources = "\n".join(path.read_text() for path in sorted((ROOT / folder).rglob("*.py")))
    given = set(re.findall(rf"\b{kind.__name__}\.([A-Z0-9_]+)", sources))
    computed = {each.name for each in Reason if each.name.startswith("STATUS_")}
    assert given | computed >= {each.name for each in kind}


if __name__ == "__main__":
    PAGE.write_text(page())
