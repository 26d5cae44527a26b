"""All cases, in the order in which they run."""

from tests.bench.cases import (
    bulk,
    capture,
    fairness,
    idle,
    pingpong,
    policy,
    push,
    requests,
)

CASES = (
    *requests.CASES,
    *pingpong.CASES,
    *bulk.CASES,
    *fairness.CASES,
    *capture.CASES,
    *policy.CASES,
    *idle.CASES,
    *push.CASES,
)
