"""File descriptors of the process: how many there may be, and how many connections fit."""

import resource

WANTED = 65_536
"""Descriptors asked of the kernel; the hard limit may be lower."""

KEPT = 192
"""Descriptors for the database, the object store, logs and listeners."""


def raise_limit() -> int:
    """Raise the soft limit of open descriptors as far as allowed and useful; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft if soft != resource.RLIM_INFINITY else WANTED


def fit_connections(descriptors: int) -> int:
    """Return for how many connections a limit of descriptors is enough.

    Each may need one more: of the blob that it reads or the upload that it writes.
    """
    return max(16, (descriptors - KEPT) // 2)
