"""Figures in the output of wrk."""

import shutil

import pytest

from benchmarks.clients.wrk import LoadError, Rate, check_installed, parse

OUTPUT = """\
Running 2s test @ http://127.0.0.1:5000/v2/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.98ms    2.68ms  30.18ms   95.17%
    Req/Sec    43.79k    10.58k   56.72k    65.00%
  Latency Distribution
     50%  238.00us
     75%  621.00us
     90%    2.06ms
     99%    1.20s
  87224 requests in 2.00s, 10.73MB read
Requests/sec:  43531.31
Transfer/sec:      5.36MB
"""


def test_requests_time_and_latencies_are_read() -> None:
    assert parse(OUTPUT.replace("238.00us", "0.25ms")) == Rate(87224, 2.0, 0.25, 1200.0)
    assert parse(OUTPUT).p50_ms == pytest.approx(0.238)
    assert parse(OUTPUT.replace("1.20s", "1.20s ")).p99_ms == 1200.0


def test_long_runs_are_printed_in_minutes() -> None:
    assert parse(OUTPUT.replace("in 2.00s", "in 1.50m")).seconds == 90.0


@pytest.mark.parametrize(
    "line",
    ["  Non-2xx or 3xx responses: 7", "  Socket errors: connect 0, read 1, write 0, timeout 0"],
)
def test_a_run_with_failed_requests_is_refused(line: str) -> None:
    with pytest.raises(LoadError, match=line.strip()):
        parse(OUTPUT + line + "\n")


def test_a_run_without_responses_is_refused() -> None:
    with pytest.raises(LoadError, match="no response"):
        parse(OUTPUT.replace("87224 requests", "0 requests"))


def test_a_missing_wrk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LoadError, match="install Debian's package wrk"):
        check_installed()
