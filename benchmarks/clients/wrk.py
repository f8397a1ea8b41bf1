"""Rates of GET requests, measured with wrk."""

import re
import shutil
import subprocess
from dataclasses import dataclass

THREADS = 1
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class LoadError(Exception):
    """A load generator that failed, or a server that did not respond with success."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Result of a run: the number of responses, and latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def check_installed() -> None:
    if shutil.which("wrk") is None:
        raise LoadError("wrk is not installed: install Debian's package wrk")


def run_wrk(
    url: str, *, seconds: float, connections: int = 16, headers: dict[str, str] | None = None
) -> Rate:
    """Send GET requests for some whole seconds. Raises LoadError if one does not succeed."""
    whole = max(1, round(seconds))
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{whole}s", "--latency"]
    command += ["--timeout", "30s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*command, url], capture_output=True, text=True, timeout=whole + 60, check=False
    )
    if done.returncode:
        raise LoadError(f"wrk failed: {done.stdout}{done.stderr}")
    return parse(done.stdout)


def parse(text: str) -> Rate:
    """Return the figures of the output of wrk. Raises LoadError if a request has failed."""
    for failure in (r"Non-2xx or 3xx responses: \d+", r"Socket errors: .*"):
        if found := re.search(failure, text):
            raise LoadError(found[0])
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    if total is None or total[1] == "0":
        raise LoadError(f"wrk received no response: {text}")
    return Rate(
        int(total[1]),
        float(total[2]) * UNITS_MS[total[3]] / 1000,
        _parse_latency(text, "50%"),
        _parse_latency(text, "99%"),
    )


def _parse_latency(text: str, percentile: str) -> float:
    found = re.search(rf"^\s*{percentile}\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk printed no latency of {percentile}: {text}")
    return float(found[1]) * UNITS_MS[found[2]]
