"""The memory for responses that the server repeats."""

from registry.config import Settings

_SHARE = 4
"""The divisor of the memory for manifests that gives the memory for responses."""


def find_answers_room(settings: Settings) -> int:
    """Return the memory for responses, in bytes: a part of `limits.manifest_cache_size`."""
    if not settings.http.answer_from_memory:
        return 0
    return settings.limits.manifest_cache_size // _SHARE
