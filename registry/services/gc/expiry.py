"""Expiry of deleted manifests and of holds."""

import time

from registry.auth.audit_log import Actor, Event, record
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds, removed_manifests

_AT_ONCE = 50

_LONGEST = 0.02
"""Seconds after which a transaction takes no further rows. A row may hold a 4 MiB manifest."""


def any_expired(tx: Transaction, until: int) -> bool:
    """Return whether `clear` has work to do."""
    return bool(removed_manifests.list_due(tx, until, 1) or holds.list_over(tx, 1))


def delete_expired(tx: Transaction, until: int) -> int:
    """Delete a batch of expired rows. Return their number.

    These are holds that have expired, and manifests deleted at or before `until` (microseconds).
    """
    deadline = time.monotonic() + _LONGEST
    count = 0
    for row in holds.list_over(tx, _AT_ONCE):
        holds.delete(tx, row.id)
        target = f"{row.repository}@{row.digest}"
        record(tx, Actor(tx.actor), Event.HOLD_EXPIRE, target, hold=row.id, reason=row.reason)
        count += 1
    for key in removed_manifests.list_due(tx, until, _AT_ONCE):
        removed_manifests.delete(tx, key)
        count += 1
        if time.monotonic() > deadline:
            break
    return count
