"""All groups of cases, in the order of the table."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import (
    authentication,
    images,
    large_blobs,
    memory,
    mirrors,
    pages,
    requests,
    slow_clients,
    starts,
    variants,
)
from benchmarks.cases.case import Case, Group, Sizes, Values
from benchmarks.cases.large_blobs import LargeBlobs
from benchmarks.cases.memory import Memory
from benchmarks.cases.requests import Content
from benchmarks.registries.registry import Registry
from benchmarks.registries.server import Server

MEMORY = Path("/dev/shm")  # noqa: S108 - created below a random name
"""A file system in memory, where half a million small files are removed quickly."""
SETTLE_S = 1.0
"""Time between the start of a server and the reading of its idle memory."""


@dataclass(frozen=True, slots=True)
class Main:
    """A server with all content of the main cases."""

    content: Content
    blobs: LargeBlobs
    memory: Memory

    @property
    def server(self) -> Server:
        return self.content.server


def prepare_main(server: Server) -> Main:
    """Start the server, read its memory and push the content."""
    server.start()
    time.sleep(SETTLE_S)
    idle = server.read_memory_mib()
    return Main(requests.push_content(server), LargeBlobs(server), Memory(server, idle))


def prepare_traced(server: Server) -> Server:
    """Start the server under strace."""
    server.start(trace=server.place.folder / "trace")
    return server


def prepare_large(server: Server) -> LargeBlobs:
    server.start()
    return LargeBlobs(server)


def prepare_content(server: Server) -> Content:
    server.start()
    return requests.push_content(server)


def adapt(case: Case[Any], select: Callable[[Any], Any]) -> Case[Any]:
    """Return the case for a group whose servers have more content than the case needs."""

    def measure(content: Any) -> Values:
        return case.measure(select(content))

    return Case(case.name, case.metrics, measure, case.most_rounds)


def rename(case: Case[Any], suffix: str, *, shows: str = "") -> Case[Any]:
    """Return the case with another name. `shows` is a metric that the table shows as well."""
    metrics = tuple(
        replace(metric, in_table=True) if metric.key == shows else metric for metric in case.metrics
    )
    return Case(f"{case.name}-{suffix}", metrics, case.measure, case.most_rounds)


def pick(cases: tuple[Case[Any], ...], *names: str) -> list[Case[Any]]:
    return [case for case in cases if case.name in names]


def list_groups(registries: list[Registry], sizes: Sizes) -> list[Group[Any]]:
    """Return all groups. Moorage is the first of the registries."""

    @contextmanager
    def open_all() -> Iterator[list[Registry]]:
        yield registries

    @contextmanager
    def open_basic() -> Iterator[list[Registry]]:
        yield authentication.require_basic(registries)

    def storm(content: Content) -> Values:
        target = f"/v2/{requests.REPOSITORY}/manifests/v7"
        headers = requests.ACCEPT
        return requests.head(content.server, target, sizes.seconds, headers, sizes.storm)

    storm_title = f"manifest HEAD on {sizes.storm:,} connections"
    storm_metrics = requests.make_rate_metrics(storm_title, shows_p99=True)
    single = requests.list_cases(sizes)
    small = images.list_cases(sizes.seconds)
    large = large_blobs.list_cases(sizes)
    main = [
        *(adapt(case, lambda main: main.content) for case in single),
        *(adapt(case, lambda main: main.server) for case in small),
        *(adapt(case, lambda main: main.blobs) for case in large),
        adapt(memory.CASE, lambda main: main.memory),
        adapt(Case("head-storm", storm_metrics, storm), lambda main: main.content),
        adapt(large_blobs.make_pulls_case(sizes), lambda main: main.blobs),
    ]
    several = [
        *(adapt(case, lambda main: main.content) for case in pick(single, "manifest-get-tag")),
        *(adapt(case, lambda main: main.server) for case in pick(small, "image-8")),
        adapt(memory.CASE, lambda main: main.memory),
    ]
    other_stores = [
        *(
            adapt(case, lambda main: main.content)
            for case in pick(single, "manifest-get-tag", "blob-get", "tags")
        ),
        *(adapt(case, lambda main: main.server) for case in pick(small, "image-1", "image-8")),
        *(adapt(case, lambda main: main.blobs) for case in large),
        adapt(memory.CASE, lambda main: main.memory),
    ]
    bearer = authentication.make_case("bearer", "manifest GET, Bearer", sizes)
    basic = authentication.make_case("basic", "manifest GET, Basic", sizes)
    slow = slow_clients.make_case(sizes)
    return [
        Group("main", tuple(main), open_all, prepare_main),
        Group("syncs", (images.make_syncs_case(sizes.traced_images),), open_all, prepare_traced),
        Group("bearer", (bearer,), open_all, authentication.prepare_bearer),
        Group("basic", (basic,), open_basic, authentication.prepare_basic),
        Group("start", (starts.CASE,), open_all, starts.prepare),
        Group(
            "pages",
            pages.list_cases(sizes),
            open_all,
            lambda server: pages.fill(server, sizes),
            parent=MEMORY,
        ),
        Group("slow", (slow,), open_all, prepare_content),
        mirrors.make_group(sizes),
        Group(
            "crowd",
            (large_blobs.make_pushes_case(sizes),),
            open_all,
            prepare_large,
            in_turns=False,
        ),
        Group(
            "workers",
            tuple(rename(case, "workers", shows="per_s") for case in several),
            variants.open_workers,
            prepare_main,
            is_of_variants=True,
        ),
        Group(
            "stores",
            tuple(rename(case, "stores") for case in other_stores),
            variants.open_stores,
            prepare_main,
            is_of_variants=True,
        ),
    ]
