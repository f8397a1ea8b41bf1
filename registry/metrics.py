"""What the server counts, for `/metrics` in Prometheus' text format.

With several workers each counts in files of its own below PROMETHEUS_MULTIPROC_DIR, which `serve`
sets before this is imported, and whichever answers adds all of them up.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "moorage_requests", "Requests answered.", ["method", "route", "status"], registry=REGISTRY
)
SECONDS = Histogram(
    "moorage_request_seconds",
    "Time from a request's headers to its last byte, in seconds.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
    registry=REGISTRY,
)
BYTES_IN = Counter("moorage_received_bytes", "Bytes of request bodies.", registry=REGISTRY)
BYTES_OUT = Counter("moorage_sent_bytes", "Bytes of response bodies.", registry=REGISTRY)
IN_FLIGHT = Gauge(
    "moorage_requests_in_flight",
    "Requests being answered.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
STORAGE_ERRORS = Counter(
    "moorage_storage_errors", "Failures of the store, by kind.", ["kind"], registry=REGISTRY
)
DATABASE_ERRORS = Counter("moorage_database_errors", "Failures of the database.", registry=REGISTRY)
BLOBS_FOUND_DAMAGED = Counter(
    "moorage_blobs_found_damaged",
    "Blobs found missing or damaged when they were asked for or checked.",
    registry=REGISTRY,
)
BLOBS_DAMAGED = Gauge(
    "moorage_blobs_damaged",
    "Blobs known to be missing or damaged now.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
BLOBS_HEALED = Counter(
    "moorage_blobs_healed", "Damaged blobs fetched anew from upstream.", registry=REGISTRY
)
MANIFESTS_UNREADABLE = Gauge(
    "moorage_manifests_unreadable",
    "Manifests known to be unreadable now: nothing of their repositories is collected.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
COLLECTED = Counter(
    "moorage_gc_collected", "Manifests and blobs that were collected.", ["kind"], registry=REGISTRY
)
COLLECTED_BYTES = Counter(
    "moorage_gc_collected_bytes", "Bytes of the blobs that were collected.", registry=REGISTRY
)
GC_QUEUE = Gauge(
    "moorage_gc_queue",
    "What the collector has yet to look at, by kind.",
    ["kind"],
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)
BLOBS_SCRUBBED = Counter("moorage_scrubbed_blobs", "Blobs read by the scrub.", registry=REGISTRY)
BYTES_SCRUBBED = Counter("moorage_scrubbed_bytes", "Bytes read by the scrub.", registry=REGISTRY)
SCRUB_FINISHED = Gauge(
    "moorage_scrub_finished_timestamp_seconds",
    "When the last whole pass of the scrub ended; 0: none has.",
    multiprocess_mode="mostrecent",
    registry=REGISTRY,
)


def render() -> bytes:
    """All metrics, of all workers."""
    if ValueClass is MutexValue:
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together)
