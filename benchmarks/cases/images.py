"""Pushes of small images, and their syncs."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.cases.case import Case, Values, measure_cpu
from benchmarks.clients.exchange import Client, run
from benchmarks.clients.images import make_small_blobs, push_image
from benchmarks.registries.server import Server
from benchmarks.samples import Metric

CLIENTS = 8
_pushes = itertools.count()


class Pushing:
    """Clients that push small images, each to a repository of its own, until the time is over."""

    def __init__(self, *, asks_first: bool = False) -> None:
        self.pushed = 0
        self._asks_first = asks_first

    def _push(self, numbers: Iterator[Any], end: float) -> Client:
        repository = f"bench/small{next(_pushes)}"
        for number in numbers:
            if time.perf_counter() > end:
                return
            blobs = make_small_blobs()
            yield from push_image(repository, f"v{number}", blobs, asks_first=self._asks_first)
            self.pushed += 1

    def run_for(self, server: Server, clients: int, seconds: float) -> float:
        """Push for some seconds, and return the time until the last push is done."""
        end = time.perf_counter() + seconds
        return run(server.port, [self._push(itertools.count(), end) for _ in range(clients)])

    def run_count(self, server: Server, clients: int, images: int) -> float:
        """Push a number of images with each client."""
        far = time.perf_counter() + 3600
        return run(server.port, [self._push(iter(range(images)), far) for _ in range(clients)])


def measure_pushes(
    server: Server, clients: int, seconds: float, *, asks_first: bool = False
) -> Values:
    pushing = Pushing(asks_first=asks_first)
    took, cpu = measure_cpu(server, lambda: pushing.run_for(server, clients, seconds))
    return {
        "ms": took * clients / pushing.pushed * 1000,
        "per_s": pushing.pushed / took,
        "cpu_ms": cpu / pushing.pushed * 1000,
    }


def make_metrics(title: str, *, shows_ms: bool) -> tuple[Metric, ...]:
    return (
        Metric("ms", f"{title}, ms", 1, higher_is_better=False, in_table=shows_ms),
        Metric("per_s", f"{title}, images/s", 1, in_table=not shows_ms),
        Metric("cpu_ms", f"{title}, CPU ms an image", 2, higher_is_better=False),
    )


def make_case(
    name: str, title: str, clients: int, seconds: float, *, asks_first: bool = False
) -> Case[Server]:
    return Case(
        name,
        make_metrics(title, shows_ms=clients == 1),
        lambda server: measure_pushes(server, clients, seconds, asks_first=asks_first),
    )


def list_cases(seconds: float) -> tuple[Case[Server], ...]:
    """Return the cases of small images: 3 blobs, 10 requests, or 13 with HEAD for each blob."""
    title = f"small image, {CLIENTS} clients"
    return (
        make_case("image-1", "small image, one client", 1, seconds),
        make_case("image-8", title, CLIENTS, seconds),
        make_case("image-8-head", f"{title}, with HEAD", CLIENTS, seconds, asks_first=True),
    )


def measure_syncs(server: Server, images: int) -> Values:
    """Count the syncs of a traced server for each image."""
    values = {}
    for key, clients in (("syncs_1", 1), ("syncs_8", CLIENTS)):
        Pushing().run_count(server, clients, 1)  # what only the first push does
        before = server.count_syncs()
        Pushing().run_count(server, clients, images)
        values[key] = (server.count_syncs() - before) / (clients * images)
    return values


def make_syncs_case(images: int) -> Case[Server]:
    """Return the case that counts syncs. It takes a server that runs under strace."""
    metrics = (
        Metric("syncs_1", "syncs a small image, one client", 1, higher_is_better=False),
        Metric("syncs_8", f"syncs a small image, {CLIENTS} clients", 1, higher_is_better=False),
    )
    return Case("image-syncs", metrics, lambda server: measure_syncs(server, images), 1)
