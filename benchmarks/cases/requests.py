"""Rates of single requests: manifests, blobs, tags and referrers."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cases.case import Case, Sizes, Values
from benchmarks.clients.blobs import Blob, make_blob
from benchmarks.clients.head_requests import run_heads
from benchmarks.clients.images import MANIFEST, Manifest, make_manifest, push_image, put_manifest
from benchmarks.clients.setup import perform, require
from benchmarks.clients.wrk import Rate, run_wrk
from benchmarks.registries.server import Server
from benchmarks.samples import Metric

REPOSITORY = "bench/app"
TAGS = 20
ACCEPT = {"Accept": MANIFEST}


@dataclass(frozen=True, slots=True)
class Content:
    """A server with an image that has 20 tags, and a blob of 2 KiB."""

    server: Server
    manifest: Manifest
    small: Blob


def push_content(server: Server, headers: dict[str, str] | None = None) -> Content:
    """Push the image and its tags."""
    blobs = [make_blob(size) for size in (1500, 2048)]
    manifest = make_manifest(blobs)
    perform(server, push_image(REPOSITORY, "v0", blobs, headers))
    for number in range(1, TAGS):
        perform(server, put_manifest(REPOSITORY, f"v{number}", manifest, headers or {}))
    return Content(server, manifest, blobs[1])


def make_rate_metrics(title: str, *, shows_p99: bool = False) -> tuple[Metric, ...]:
    return (
        Metric("per_cpu_s", f"{title}, per CPU s"),
        Metric("per_s", f"{title}, per s", in_table=False),
        Metric("p50_ms", f"{title}, p50 ms", 2, higher_is_better=False, in_table=False),
        Metric("p99_ms", f"{title}, p99 ms", 2, higher_is_better=False, in_table=shows_p99),
    )


def measure_rate(server: Server, run: Callable[[], Rate]) -> Values:
    before = server.read_cpu_s()
    rate = run()
    return make_values(rate, server.read_cpu_s() - before)


def make_values(rate: Rate, cpu_s: float) -> Values:
    """Return the values of the metrics of rates."""
    return {
        "per_cpu_s": rate.requests / cpu_s,
        "per_s": rate.requests / rate.seconds,
        "p50_ms": rate.p50_ms,
        "p99_ms": rate.p99_ms,
    }


def get(
    server: Server, target: str, seconds: float, headers: dict[str, str], connections: int = 16
) -> Values:
    """Measure GET requests for a target that must exist."""
    require(server, target, headers)
    return measure_rate(
        server,
        lambda: run_wrk(
            server.url + target, seconds=seconds, headers=headers, connections=connections
        ),
    )


def head(
    server: Server, target: str, seconds: float, headers: dict[str, str], connections: int = 16
) -> Values:
    """Measure HEAD requests for a target that must exist."""
    require(server, target, headers, "HEAD")
    return measure_rate(
        server,
        lambda: run_heads(
            server.port, target, seconds=seconds, headers=headers, connections=connections
        ),
    )


def list_cases(sizes: Sizes) -> tuple[Case[Content], ...]:
    """Return the cases of single requests without authentication."""

    def of(
        name: str, title: str, target: Callable[[Content], str], *, heads: bool = False
    ) -> Case[Content]:
        def measure(content: Content) -> Values:
            work = head if heads else get
            return work(content.server, target(content), sizes.seconds, ACCEPT)

        return Case(name, make_rate_metrics(title), measure)

    def by_digest(content: Content) -> str:
        return f"/v2/{REPOSITORY}/manifests/{content.manifest.digest}"

    def by_tag(_: Content) -> str:
        return f"/v2/{REPOSITORY}/manifests/v7"

    def blob(content: Content) -> str:
        return f"/v2/{REPOSITORY}/blobs/{content.small.digest}"

    return (
        of("v2", "GET /v2/", lambda _: "/v2/"),
        of("manifest-get-tag", "manifest GET by tag", by_tag),
        of("manifest-get-digest", "manifest GET by digest", by_digest),
        of("manifest-head-tag", "manifest HEAD by tag", by_tag, heads=True),
        of("manifest-head-digest", "manifest HEAD by digest", by_digest, heads=True),
        of("blob-head", "blob HEAD", blob, heads=True),
        of("blob-get", "blob GET, 2 KiB", blob),
        of("tags", f"tags list, {TAGS} tags", lambda _: f"/v2/{REPOSITORY}/tags/list"),
        of(
            "referrers",
            "referrers (none)",
            lambda c: f"/v2/{REPOSITORY}/referrers/{c.manifest.digest}",
        ),
    )
