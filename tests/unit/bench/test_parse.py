"""Output of the load generators, good and bad."""

from __future__ import annotations

import json

import pytest

from tests.bench import parse
from tests.bench.model import BenchError

WRK = """\
Running 2s test @ http://10.72.1.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.12ms    2.31ms  40.20ms   97.10%
    Req/Sec    58.21k     2.10k   60.11k    85.00%
  Latency Distribution
     50%  812.00us
     75%    1.10ms
     90%    1.80ms
     99%    2.60ms
  116400 requests in 2.00s, 132.20MB read
Requests/sec:  58200.50
Transfer/sec:     66.10MB
"""


def test_wrk_rates_and_latencies_in_one_unit() -> None:
    assert parse.wrk(WRK) == parse.Wrk(116400, 58200.5, 812.0, 2600.0)


def test_wrk_latencies_in_seconds() -> None:
    assert parse.wrk(WRK.replace("2.60ms", "1.25s")).p99_us == 1_250_000


@pytest.mark.parametrize(
    "extra",
    [
        "  Socket errors: connect 0, read 900, write 0, timeout 3\n",
        "  Non-2xx or 3xx responses: 5000\n",
    ],
)
def test_failed_requests_are_no_figure(extra: str) -> None:
    with pytest.raises(BenchError, match="requests failed"):
        parse.wrk(WRK.replace("Requests/sec", extra + "Requests/sec"))


def test_a_single_cut_connection_at_the_end_is_none() -> None:
    line = "  Socket errors: connect 0, read 1, write 0, timeout 0\n"
    assert parse.wrk(WRK + line).requests == 116400


@pytest.mark.parametrize("text", ["", "unable to connect", WRK.replace("116400", "0")])
def test_wrk_without_answers_is_an_error(text: str) -> None:
    with pytest.raises(BenchError, match="no answers"):
        parse.wrk(text)


def test_wrk_without_latencies_is_an_error() -> None:
    with pytest.raises(BenchError, match="no latencies"):
        parse.wrk(WRK.replace("99%", "98%"))


def test_iperf_counts_what_was_received() -> None:
    told = {"end": {"sum_received": {"bits_per_second": 6.5e9}, "sum_sent": {}}}
    assert parse.iperf(json.dumps(told)) == 6.5


@pytest.mark.parametrize(
    "text", ["", "no json", '{"error": "the server is busy"}', '{"end": {}}', '{"end": []}']
)
def test_iperf_that_failed_is_an_error(text: str) -> None:
    with pytest.raises(BenchError, match="iperf3"):
        parse.iperf(text)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert parse.quantile(values, 0.5) == 50
    assert parse.quantile(values, 0.99) == 99
    assert parse.quantile(values, 1.0) == 100
    assert parse.quantile(values, 0.0) == 1
    assert parse.quantile([7.0], 0.99) == 7


def test_no_samples_have_no_quantile() -> None:
    with pytest.raises(BenchError):
        parse.quantile([], 0.5)


def test_samples_of_a_time_come_sorted() -> None:
    found = parse.samples("1.0 30.0\n1.5 10.0\n2.0 20.0\n3.0 5.0\n")
    assert found.between(1.0, 2.5) == [10.0, 20.0, 30.0]
    assert found.between(2.0, 3.0) == [20.0]


def test_a_probe_that_complains_is_an_error() -> None:
    with pytest.raises(BenchError, match="Traceback"):
        parse.samples("Traceback (most recent call last)\n")


def test_counters_are_summed_by_a_label() -> None:
    page = (
        "# TYPE opened_total counter\n"
        'opened_total{reporter="source",path="direct"} 3.0\n'
        'opened_total{reporter="destination",path="direct"} 2\n'
        'opened_total{reporter="source"} 5\n'
        'opened_total_other{path="direct"} 7\n'
    )
    assert parse.counter(page, "opened_total", "path") == {"direct": 5.0, "": 5.0}
    assert parse.counter(page, "opened_total") == {"": 10.0}
    assert parse.counter(page, "absent") == {}
