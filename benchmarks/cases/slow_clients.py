"""Pulls of healthy clients while thousands of others are slow or idle."""

from benchmarks.cases.case import Case, Sizes, Values
from benchmarks.cases.requests import ACCEPT, REPOSITORY, Content
from benchmarks.clients.slow_sockets import SlowSockets
from benchmarks.clients.wrk import run_wrk
from benchmarks.samples import Metric


def make_case(sizes: Sizes) -> Case[Content]:
    """Return the case, which measures the same pulls without and with the slow clients."""

    def measure(content: Content) -> Values:
        url = f"{content.server.url}/v2/{REPOSITORY}/manifests/v7"
        alone = run_wrk(url, seconds=sizes.seconds, headers=ACCEPT)
        with SlowSockets(content.server.port, slow=sizes.slow, idle=sizes.idle) as sockets:
            crowded = run_wrk(url, seconds=sizes.seconds, headers=ACCEPT)
            open_sockets = sockets.count_open()
        return {
            "alone_p99_ms": alone.p99_ms,
            "crowded_p99_ms": crowded.p99_ms,
            "growth": crowded.p99_ms / alone.p99_ms,
            "open": open_sockets,
        }

    title = f"manifest GET, {sizes.slow:,} slow and {sizes.idle:,} idle sockets"
    return Case(
        "slow-clients",
        (
            Metric("alone_p99_ms", "the same without them, p99 ms", 2, higher_is_better=False),
            Metric("crowded_p99_ms", f"{title}, p99 ms", 2, higher_is_better=False),
            Metric("growth", f"{title}, p99 / p99 without", 2, higher_is_better=False),
            Metric("open", "slow and idle sockets that are open", 0, in_table=False),
        ),
        measure,
    )
