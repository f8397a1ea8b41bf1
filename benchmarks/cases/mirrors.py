"""Cases of a mirror and of its upstream: content that is cached, and content that is not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.cases import large_blobs, requests
from benchmarks.cases.case import Case, Group, Sizes, Values, measure_cpu
from benchmarks.cases.requests import ACCEPT, Content
from benchmarks.clients.blobs import MIB, make_blob
from benchmarks.clients.exchange import run
from benchmarks.clients.images import pull_blob, push_blob
from benchmarks.clients.setup import perform, require
from benchmarks.registries.moorage import make_moorage, run_command
from benchmarks.registries.registry import Registry
from benchmarks.registries.server import Server

UPSTREAM, MIRROR = "registry", "its mirror"
PREFIX = "bench"
"""The prefix of the mirror."""


@dataclass(slots=True)
class Side:
    """One of the two servers. `upstream` is the registry, with the content of `requests`."""

    server: Server
    upstream: Content

    def find(self, repository: str) -> str:
        """Return the name at this server of a repository of the registry."""
        return repository if self.server is self.upstream.server else f"{PREFIX}/{repository}"


@dataclass(slots=True)
class Pair:
    """Starts the registry, and then a mirror of it."""

    content: list[Content] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[list[Registry]]:
        self.content.clear()
        yield [make_moorage(UPSTREAM), make_moorage(MIRROR)]

    def prepare(self, server: Server) -> Side:
        if server.name == UPSTREAM:
            server.start()
            self.content.append(requests.push_content(server))
        else:
            url = self.content[0].server.url
            options = ("--upstream", url, "--prefix", PREFIX, "--allow-private", "--tag-ttl", "1h")
            run_command(server, "mirror", "add", "upstream", *options)
            server.start()
        return Side(server, self.content[0])


def measure_manifest(side: Side, sizes: Sizes) -> Values:
    """Get a manifest by its tag, whose image is cached."""
    path = f"/v2/{side.find(requests.REPOSITORY)}"
    manifest = json.loads(side.upstream.manifest.raw)
    for each in (manifest["config"], *manifest["layers"]):
        require(side.server, f"{path}/blobs/{each['digest']}")
    return requests.get(side.server, f"{path}/manifests/v7", sizes.seconds, ACCEPT)


def measure_blob(side: Side, sizes: Sizes) -> Values:
    """Get a small blob that is cached."""
    target = f"/v2/{side.find(requests.REPOSITORY)}/blobs/{side.upstream.small.digest}"
    return requests.get(side.server, target, sizes.seconds, {})


def measure_miss(side: Side, sizes: Sizes) -> Values:
    """Pull a blob for the first time. The kernel of the registry has it in memory."""
    blob = make_blob(sizes.miss_mib * MIB)
    perform(side.upstream.server, push_blob(large_blobs.REPOSITORY, blob, {}))
    server, repository = side.server, side.find(large_blobs.REPOSITORY)
    server.reset_peak()
    took, cpu = measure_cpu(server, lambda: run(server.port, [pull_blob(repository, blob)]))
    return {"s": took, "cpu_s": cpu, "peak_mib": server.read_peak_mib()}


def make_group(sizes: Sizes) -> Group[Side]:
    """Return the cases of a mirror."""
    pair = Pair()
    rates = requests.make_rate_metrics
    return Group(
        "mirror",
        (
            Case(
                "mirror-manifest",
                rates("cached manifest GET by tag"),
                lambda side: measure_manifest(side, sizes),
            ),
            Case(
                "mirror-blob",
                rates("cached blob GET, 2 KiB"),
                lambda side: measure_blob(side, sizes),
            ),
            Case(
                "mirror-miss",
                large_blobs.make_metrics(f"first pull of {sizes.miss_mib} MiB", shows_peak=True),
                lambda side: measure_miss(side, sizes),
            ),
        ),
        pair.open,
        pair.prepare,
        is_of_variants=True,
    )
