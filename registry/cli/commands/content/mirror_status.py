"""How a mirror does, as `moorage mirror show` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.units import round_size

if TYPE_CHECKING:
    from registry.operations.mirrors.status import MirrorStatus


def list_status(status: MirrorStatus, *, is_remote: bool) -> list[tuple[str, str]]:
    """Return the lines about the requests and the upstream. Only a running server knows them."""
    if not is_remote:
        return [("upstream", "known to a running server: ask it with --url")]
    found = status.hits + status.stale
    asked = found + status.misses
    rows = [
        ("hit-rate", f"{found / asked:.1%} of {asked} requests" if asked else "no requests yet"),
        ("received", round_size(status.received_bytes)),
        ("sent", round_size(status.sent_bytes)),
        ("upstream", _describe(status)),
    ]
    if status.stale:
        rows.append(("stale", f"{status.stale} responses without the upstream"))
    if status.last_error is not None:
        rows.append(("last-error", f"{status.last_error} ({status.last_error_at})"))
    if status.quota_remaining is not None:
        rows.append(("quota-left", f"{status.quota_remaining} of {status.quota_limit} pulls"))
    return rows


def _describe(status: MirrorStatus) -> str:
    if status.is_up is None:
        return "not asked yet"
    return "works" if status.is_up else "fails, and is not called for a while"
