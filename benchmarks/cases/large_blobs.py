"""Push and pull of large blobs, by one client and by many at once."""

import os
from dataclasses import dataclass, field

from benchmarks.cases.case import Case, Sizes, Values, measure_cpu
from benchmarks.clients.blobs import MIB, Blob, make_blob
from benchmarks.clients.exchange import run
from benchmarks.clients.images import pull_blob, push_blob
from benchmarks.clients.setup import perform
from benchmarks.registries.server import Server
from benchmarks.samples import Metric

REPOSITORY = "bench/large"


@dataclass(slots=True)
class LargeBlobs:
    """A server, and the blobs that were pushed to it, by size in MiB."""

    server: Server
    pushed: dict[int, Blob] = field(default_factory=dict)

    def get(self, size_mib: int) -> Blob:
        """Return a blob of that size, which is pushed if there is none."""
        if size_mib not in self.pushed:
            blob = make_blob(size_mib * MIB)
            perform(self.server, push_blob(REPOSITORY, blob, {}))
            self.pushed[size_mib] = blob
        return self.pushed[size_mib]


def measure_push(blobs: LargeBlobs, size_mib: int, clients: int) -> Values:
    """Push unique blobs at once, after the data of the other registries is on the disk."""
    made = [make_blob(size_mib * MIB) for _ in range(clients)]
    server = blobs.server
    os.sync()
    server.reset_peak()
    took, cpu = measure_cpu(
        server, lambda: run(server.port, [push_blob(REPOSITORY, blob, {}) for blob in made])
    )
    blobs.pushed[size_mib] = made[0]
    return {"s": took, "cpu_s": cpu, "peak_mib": server.read_peak_mib()}


def measure_pull(blobs: LargeBlobs, size_mib: int, clients: int) -> Values:
    """Pull one blob many times at once. The kernel has it in memory."""
    blob = blobs.get(size_mib)
    server = blobs.server
    server.reset_peak()
    took, cpu = measure_cpu(
        server, lambda: run(server.port, [pull_blob(REPOSITORY, blob) for _ in range(clients)])
    )
    return {"s": took, "cpu_s": cpu, "peak_mib": server.read_peak_mib()}


def make_metrics(title: str, *, shows_peak: bool) -> tuple[Metric, ...]:
    return (
        Metric("s", f"{title}, s", 2, higher_is_better=False),
        Metric("cpu_s", f"{title}, CPU s", 2, higher_is_better=False),
        Metric("peak_mib", f"{title}, peak MiB", 0, higher_is_better=False, in_table=shows_peak),
    )


def list_cases(sizes: Sizes) -> tuple[Case[LargeBlobs], ...]:
    """Return the cases of one client."""
    size = sizes.large_mib
    return (
        Case(
            "push-large",
            make_metrics(f"push {size} MiB", shows_peak=False),
            lambda blobs: measure_push(blobs, size, 1),
        ),
        Case(
            "pull-large",
            make_metrics(f"pull {size} MiB", shows_peak=False),
            lambda blobs: measure_pull(blobs, size, 1),
        ),
    )


def make_pulls_case(sizes: Sizes) -> Case[LargeBlobs]:
    title = f"{sizes.crowd} pulls of {sizes.pull_mib} MiB at once"
    return Case(
        "pulls-crowd",
        make_metrics(title, shows_peak=True),
        lambda blobs: measure_pull(blobs, sizes.pull_mib, sizes.crowd),
    )


def make_pushes_case(sizes: Sizes) -> Case[LargeBlobs]:
    title = f"{sizes.crowd} pushes of {sizes.large_mib} MiB at once"
    return Case(
        "pushes-crowd",
        make_metrics(title, shows_peak=True),
        lambda blobs: measure_push(blobs, sizes.large_mib, sizes.crowd),
        1,
    )
