"""File descriptors: the limit of the process and how many connections fit."""

import resource

WANTED = 65_536
"""The number of descriptors to request from the kernel; the hard limit may be lower."""

KEPT = 192
"""The number of descriptors for the database, the object store, logs and listeners."""


def raise_limit() -> int:
    """Raise the soft limit of open descriptors as far as allowed and useful, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft if soft != resource.RLIM_INFINITY else WANTED


def fit_connections(descriptors: int) -> int:
    """Return the number of connections that a limit of descriptors is enough for.

    Each connection may need a second descriptor for the blob that it reads or the upload that it
    writes.
    """
    return max(16, (descriptors - KEPT) // 2)
