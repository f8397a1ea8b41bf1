"""The background jobs and their schedule."""

from registry import clock
from registry.jobs.runner import Job
from registry.services.access.access import AccessServices
from registry.services.services import Services

SWEEP_EVERY = 2.0
SPARE_EVERY = 10.0
EXPIRE_EVERY = 60.0
RECOVER_EVERY = 3600.0
TIDY_EVERY = 3600.0
SCRUB_EVERY = 60.0
HEAL_EVERY = 10.0
EVICT_EVERY = 10.0
SYNC_EVERY = 2.0

SCRUB = "scrub"
"""Name of the job. The command `scrub` takes the same lease."""
RETAIN_EVERY = 30.0
"""Seconds between checks whether a run is due."""
COUNT_EVERY = 2.0


def list_jobs(
    registry: Services,
    access: AccessServices,
    *,
    upload_expiry: float,
    audit_keep: float,
    gc_interval: float,
) -> list[Job]:
    """Return all jobs. Durations are in seconds; `upload_expiry` counts from the last activity."""

    def before() -> int:
        return clock.now_us() - int(upload_expiry * 1_000_000)

    async def expire() -> int:
        return await registry.uploads.expire(before())

    async def is_any_idle() -> bool:
        return await registry.uploads.is_any_idle(before())

    async def always() -> bool:
        return True

    retention = registry.retention
    return [
        Job("gc", gc_interval, registry.collector.is_due, registry.collector.run),
        Job(
            "pending-deletions",
            SWEEP_EVERY,
            registry.deletions.is_any_due,
            registry.deletions.sweep,
        ),
        Job("disk-reserve", SPARE_EVERY, registry.disk_reserve.is_due, registry.disk_reserve.make),
        Job("upload-expiry", min(EXPIRE_EVERY, upload_expiry / 4), is_any_idle, expire),
        Job("staging-recovery", RECOVER_EVERY, always, registry.uploads.recover),
        Job(
            "retention",
            min(RETAIN_EVERY, retention.interval),
            retention.is_due,
            retention.work,
        ),
        Job("audit-trim", TIDY_EVERY, always, lambda: access.audit.trim(audit_keep)),
        Job("usage-recount", COUNT_EVERY, registry.quotas.is_any_due, registry.quotas.count),
        Job("access-cleanup", TIDY_EVERY, always, access.access_cleanup.run),
        Job(SCRUB, SCRUB_EVERY, registry.scrub.is_due, registry.scrub.run),
        Job("mirror-eviction", EVICT_EVERY, registry.eviction.is_due, registry.eviction.run),
        find_healing(registry),
        Job("mirror-sync", SYNC_EVERY, registry.sync_worker.is_due, registry.sync_worker.run),
    ]


def find_healing(registry: Services) -> Job:
    """Return the healing job, which `moorage scrub run` also runs."""
    return Job("healing", HEAL_EVERY, registry.healer.is_due, registry.healer.run)
