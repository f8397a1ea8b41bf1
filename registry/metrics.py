"""Metrics of the server, exported at `/metrics` in the Prometheus text format.

With several workers, each worker writes its own files in PROMETHEUS_MULTIPROC_DIR, which `serve`
sets before this module is imported. The worker that answers `/metrics` adds all of them up.
"""

import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.values import MutexValue, ValueClass

from registry.version import find_version

REGISTRY = CollectorRegistry()


class Late(Protocol):
    """A part of the server that adds to the metrics with a delay."""

    def count(self) -> None:
        """Add everything now."""


LATE: "WeakSet[Late]" = WeakSet()
"""All of them in this process."""


class DurationHistogram(Histogram):
    """A histogram that adds many observations of the same value at once."""

    def observe_many(self, value: float, times: int) -> None:
        """Observe `value`, `times` times."""
        self._sum.inc(value * times)
        for bound, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if value <= bound:
                bucket.inc(times)
                break


DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
"""The upper bounds of the buckets of REQUEST_DURATION, in seconds."""

REQUESTS = Counter(
    "moorage_requests",
    "Requests that were answered.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
REQUEST_DURATION = DurationHistogram(
    "moorage_request_duration_seconds",
    "Time from the headers of a request to the last byte of its response, in seconds.",
    ["method", "route"],
    buckets=DURATIONS,
    registry=REGISTRY,
)
ANSWERS_FROM_MEMORY = Counter(
    "moorage_answers_from_memory",
    "Requests that were answered from memory (`http.answer_from_memory`).",
    registry=REGISTRY,
)
REQUEST_BYTES = Counter("moorage_received_bytes", "Bytes of request bodies.", registry=REGISTRY)
RESPONSE_BYTES = Counter("moorage_sent_bytes", "Bytes of response bodies.", registry=REGISTRY)
IN_FLIGHT = Gauge(
    "moorage_requests_in_flight",
    "Requests in progress.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
LOG_LINES_DROPPED = Counter(
    "moorage_log_lines_dropped",
    "Log lines that were dropped because the reader of standard error is slow.",
    registry=REGISTRY,
)
STORAGE_ERRORS = Counter(
    "moorage_storage_errors", "Errors of the store, by kind.", ["kind"], registry=REGISTRY
)
DATABASE_ERRORS = Counter("moorage_database_errors", "Errors of the database.", registry=REGISTRY)
BLOBS_FOUND_DAMAGED = Counter(
    "moorage_blobs_found_damaged",
    "Blobs that a request or check found missing or damaged.",
    registry=REGISTRY,
)
BLOBS_DAMAGED = Gauge(
    "moorage_blobs_damaged",
    "Blobs that are known to be missing or damaged.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
BLOBS_HEALED = Counter(
    "moorage_blobs_healed",
    "Damaged blobs that were fetched again from upstream.",
    registry=REGISTRY,
)
MANIFESTS_UNREADABLE = Gauge(
    "moorage_manifests_unreadable",
    "Manifests that are known to be unreadable. Nothing is collected in their repositories.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
GC_COLLECTED = Counter(
    "moorage_gc_collected",
    "Manifests and blobs that garbage collection deleted.",
    ["kind"],
    registry=REGISTRY,
)
GC_COLLECTED_BYTES = Counter(
    "moorage_gc_collected_bytes",
    "Bytes of the blobs that garbage collection deleted.",
    registry=REGISTRY,
)
GC_QUEUE = Gauge(
    "moorage_gc_queue",
    "Candidates in the queue of garbage collection, by kind.",
    ["kind"],
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
BLOBS_SCRUBBED = Counter("moorage_scrubbed_blobs", "Blobs read by the scrub.", registry=REGISTRY)
BYTES_SCRUBBED = Counter("moorage_scrubbed_bytes", "Bytes read by the scrub.", registry=REGISTRY)
SCRUB_FINISHED = Gauge(
    "moorage_scrub_finished_timestamp_seconds",
    "Time when the last complete scrub ended; 0 if none has.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
MIRROR_FILLS = Gauge(
    "moorage_mirror_fills",
    "Blobs that are being fetched from upstreams.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
MIRROR_REQUESTS = Counter(
    "moorage_mirror_requests",
    "Requests for content of mirrors, by result: hit (cached), miss (fetched from the upstream), "
    "stale (cached, but the upstream fails), unknown (the upstream does not have it) or error.",
    ["mirror", "kind", "result"],
    registry=REGISTRY,
)
MIRROR_RECEIVED_BYTES = Counter(
    "moorage_mirror_received_bytes",
    "Bytes of manifests and blobs received from upstreams.",
    ["mirror"],
    registry=REGISTRY,
)
MIRROR_SENT_BYTES = Counter(
    "moorage_mirror_sent_bytes",
    "Bytes of manifests and blobs of mirrors sent to clients, without redirects to a bucket.",
    ["mirror", "kind"],
    registry=REGISTRY,
)
MIRROR_UPSTREAM_UP = Gauge(
    "moorage_mirror_upstream_up",
    "1 if requests are sent to the upstream, 0 if it fails and is not called for a while.",
    ["mirror"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
MIRROR_QUOTA_LIMIT = Gauge(
    "moorage_mirror_quota_limit",
    "Pulls that the upstream allows in its window, if it says so.",
    ["mirror"],
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
MIRROR_QUOTA_REMAINING = Gauge(
    "moorage_mirror_quota_remaining",
    "Pulls that the upstream still allows in its window, if it says so.",
    ["mirror"],
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
MIRROR_FILLS_FAILED = Counter(
    "moorage_mirror_fills_failed",
    "Blobs that could not be fetched from an upstream or stored, by cause.",
    ["cause"],
    registry=REGISTRY,
)


_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessCollector(Collector):
    """Collector for memory, CPU time, open file descriptors and version of this server.

    With several workers, every worker reports the sums over all workers and their parent. The
    process collector of the library covers only one process, so it is not used.
    """

    def __init__(self, *, has_parent: bool) -> None:
        self._has_parent = has_parent

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "moorage_build_info", "Versions of Moorage and Python.", labels=["version", "python"]
        )
        build.add_metric([find_version(), platform.python_version()], 1)
        yield build
        stats = [stat for pid in self._list_pids() if (stat := _read_stat(pid)) is not None]
        if not stats:
            return
        # The parent accounts for the CPU time of workers that have ended, so the sum never falls.
        cpu = sum(stat.cpu + (stat.cpu_of_ended if self._has_parent else 0) for stat in stats)
        yield CounterMetricFamily(
            "process_cpu_seconds", "User and system CPU time in seconds.", value=cpu
        )
        started = min(stat.started for stat in stats)
        for name, text, value in (
            ("resident_memory_bytes", "Resident memory in bytes.", sum(s.resident for s in stats)),
            ("virtual_memory_bytes", "Virtual memory in bytes.", sum(s.virtual for s in stats)),
            ("open_fds", "Open file descriptors.", sum(s.open_files for s in stats)),
            ("max_fds", "Open file descriptors allowed.", sum(s.max_files for s in stats)),
            ("start_time_seconds", "Start time of the server in seconds since the epoch.", started),
        ):
            yield GaugeMetricFamily(f"process_{name}", text, value=value)

    def _list_pids(self) -> list[int]:
        if not self._has_parent:
            return [os.getpid()]
        parent = os.getppid()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:  # the kernel does not provide the list
            return [parent, os.getpid()]
        return [parent, *map(int, children)]


class _Stat(NamedTuple):
    """Kernel statistics of a process, in seconds and bytes."""

    cpu: float
    cpu_of_ended: float
    started: float
    virtual: int
    resident: int
    open_files: int
    max_files: float


def _read_stat(pid: int) -> _Stat | None:
    """Return the statistics of a process, or None if it has ended."""
    folder = Path("/proc", str(pid))
    try:
        # Split after the name, which may contain any character. The first field here is the third
        # in proc(5).
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        booted = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
        limit = re.search(r"^Max open files +(\S+)", (folder / "limits").read_text(), re.MULTILINE)
        open_files = sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        return None
    boot = int(booted[1]) if booted else 0
    return _Stat(
        cpu=(int(stat[11]) + int(stat[12])) / _TICKS,
        cpu_of_ended=(int(stat[13]) + int(stat[14])) / _TICKS,
        started=boot + int(stat[19]) / _TICKS,
        virtual=int(stat[20]),
        resident=int(stat[21]) * _PAGE,
        open_files=open_files,
        max_files=float(limit[1].replace("unlimited", "inf")) if limit else math.inf,
    )


def update() -> None:
    """Bring the metrics up to date. Call this on the event loop, before `render`."""
    for late in list(LATE):
        late.count()


def render() -> bytes:
    """Return the metrics of all workers in the Prometheus text format."""
    return generate_latest(_combine())


def list_samples(**labels: str) -> Iterator[Sample]:
    """Yield the samples of all workers that have these labels."""
    for family in _combine().collect():
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                yield sample


def _combine() -> CollectorRegistry:
    """Return a registry with the metrics of all workers."""
    if ValueClass is MutexValue:
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    together.register(ProcessCollector(has_parent=True))
    return together


REGISTRY.register(ProcessCollector(has_parent=False))
