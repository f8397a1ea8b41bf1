"""Pages of many tags and of many repositories."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cases.case import Case, Sizes, Values
from benchmarks.cases.requests import get, make_rate_metrics, make_values
from benchmarks.clients.blobs import make_blob
from benchmarks.clients.images import push_image
from benchmarks.clients.setup import UnsupportedError, perform, require
from benchmarks.clients.wrk import Rate
from benchmarks.filling.fill import fill_repositories, fill_tags
from benchmarks.registries.server import Server

TAGGED = "bench/tags"
FIRST = "t000000"
CATALOGUE_PAGE = 100
CONNECTIONS = 2
"""Few, because one of these requests can take seconds with some registries."""


@dataclass(frozen=True, slots=True)
class Pages:
    """A server with many tags and repositories."""

    server: Server


def fill(server: Server, sizes: Sizes) -> Pages:
    """Start the server with the content. Pushing it would take an hour with some registries."""
    server.start()
    perform(server, push_image(TAGGED, FIRST, [make_blob(1500), make_blob(2048)]))
    server.stop()
    fill_tags(server, TAGGED, FIRST, [f"t{number:06}" for number in range(1, sizes.tags)])
    fill_repositories(
        server, TAGGED, FIRST, [f"many/r{number:06}" for number in range(sizes.repositories)]
    )
    server.start()
    return Pages(server)


def measure_page(server: Server, target: str, key: str, count: int, seconds: float) -> Values:
    """Measure a page that must have `count` entries.

    If the first request takes longer than `seconds`, it is the sample.
    """
    before, begun = server.read_cpu_s(), time.perf_counter()
    try:
        page = json.loads(require(server, target).body)[key]
    except (http.client.RemoteDisconnected, ConnectionResetError) as error:
        waited = time.perf_counter() - begun
        raise UnsupportedError(f"ends the connection after {waited:.0f} s") from error
    took, cpu = time.perf_counter() - begun, server.read_cpu_s() - before
    if len(page) != count:
        raise UnsupportedError(f"the page has {len(page)} entries instead of {count}")
    if took > seconds:
        return make_values(Rate(1, took, took * 1000, took * 1000), cpu)
    return get(server, target, seconds, {}, CONNECTIONS)


def list_cases(sizes: Sizes) -> tuple[Case[Pages], ...]:
    """Return the first and the last page of both lists."""
    tags = f"/v2/{TAGGED}/tags/list?n={sizes.page}"
    last_tag = f"t{sizes.tags - sizes.page - 1:06}"
    repositories = f"/v2/_catalog?n={CATALOGUE_PAGE}"
    # Names in other folders come first, so that the last page only has generated ones.
    last_repository = f"many/r{sizes.repositories - CATALOGUE_PAGE - 1:06}"

    def of(name: str, title: str, target: str, key: str, count: int) -> Case[Pages]:
        measure: Callable[[Pages], Values] = lambda pages: measure_page(  # noqa: E731
            pages.server, target, key, count, sizes.seconds
        )
        return Case(name, make_rate_metrics(title), measure)

    of_tags = f"{sizes.page:,} of {sizes.tags:,} tags"
    of_all = f"{CATALOGUE_PAGE} of {sizes.repositories:,} repositories"
    return (
        of("tags-first", f"first page, {of_tags}", tags, "tags", sizes.page),
        of("tags-last", f"last page, {of_tags}", f"{tags}&last={last_tag}", "tags", sizes.page),
        of(
            "catalogue-first",
            f"first page, {of_all}",
            repositories,
            "repositories",
            CATALOGUE_PAGE,
        ),
        of(
            "catalogue-last",
            f"last page, {of_all}",
            f"{repositories}&last={last_repository}",
            "repositories",
            CATALOGUE_PAGE,
        ),
    )
