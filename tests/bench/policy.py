"""Cost of policy in a ztunnel: `python -m tests.bench.policy`. A verdict through the index beside
`decide()` over all the policies, load and memory, for 1 to 1,000 policies of ten rules."""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
    decide,
)
from control.wire import security_pb2
from control.wire.convert_policy import policy_from_wire, policy_to_wire
from ztunnel.mesh.policies import PolicyBook

RULES, ROUNDS = 10, 5
SIZES = (1, 10, 100, 1000)
CALLS = {
    "permit": SpiffeId("cluster.local", "ns1", "sa1-3"),
    "deny": SpiffeId("cluster.local", "elsewhere", "nobody"),
}


def policy(number: int) -> Policy:
    """Every third one denies; the rest allow one account of many at two ports."""
    rules = []
    for rule in range(RULES):
        who = f"cluster.local/ns/ns{number % 50}/sa/sa{number}-{rule}"
        source = Match(principals=(StringMatch(StringMatchKind.EXACT, who),))
        rules.append(Rule((Clause((source,)), Clause((Match(destination_ports=(8080, 8081)),)))))
    action = Action.DENY if number % 3 == 2 else Action.ALLOW
    return Policy(f"p{number}", "shop", PolicyScope.NAMESPACE, action, tuple(rules))


def microseconds(what: Callable[[], object], times: int) -> float:
    """Median of the rounds, per call."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        for _ in range(times):
            what()
        rounds.append((time.perf_counter() - began_s) / times * 1e6)
    return statistics.median(rounds)


def memory(raws: dict[str, bytes]) -> tuple[int, int]:
    """Bytes of the decoded policies alone, and of a book that answers from them."""
    tracemalloc.start()
    decoded = [
        policy_from_wire(security_pb2.Authorization.FromString(raw)) for raw in raws.values()
    ]
    alone, _ = tracemalloc.get_traced_memory()
    book = loaded(raws)
    both, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(decoded) == len(book)
    return alone, both - alone


def loaded(raws: dict[str, bytes]) -> PolicyBook:
    book = PolicyBook()
    for name, raw in raws.items():
        book.put(name, raw)
    return book


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    say("policies  call    verdict µs  all rules µs  load µs/policy  memory, of decoded")
    for size in SIZES:
        made = [policy(number) for number in range(size)]
        raws = {each.key: policy_to_wire(each).SerializeToString() for each in made}
        load_us = microseconds(lambda raws=raws: loaded(raws), 1) / size  # type: ignore[misc]
        alone, held = memory(raws)
        book = loaded(raws)
        there, whole = book.in_force("shop", ()), book.policies("shop", ())
        for name, peer in CALLS.items():
            here = parse_address("10.0.0.2")
            call = Connection(peer, parse_address("10.0.0.1"), here, 8080)
            assert there.verdict(call) == decide(whole, call)
            short_us = microseconds(lambda at=there, call=call: at.verdict(call), 2000)  # type: ignore[misc]
            long_us = microseconds(lambda of=whole, call=call: decide(of, call), 3)  # type: ignore[misc]
            say(
                f"{size:8}  {name:6}  {short_us:10.1f}  {long_us:12.0f}  {load_us:14.0f}"
                f"  {held / alone:18.2f}"
            )


if __name__ == "__main__":
    main()
