"""Settings of the garbage collector.

Every command imports this module, so it imports nothing slow.
"""

from dataclasses import dataclass
from typing import Annotated

from registry.services.gc.untagged import Rules, Untagged, UntaggedRules
from registry.units import Limit, Size, Timeout, Window, choice


@dataclass(frozen=True, slots=True, kw_only=True)
class GcSettings:
    """`[gc]`: garbage collection of unreferenced content."""

    grace_period: Annotated[
        Timeout, "How long unreferenced content is kept after its last push, request or use."
    ] = 86_400.0
    interval: Annotated[Timeout, "How often the collector checks what is due."] = 60.0
    untagged: Annotated[
        Untagged,
        choice(Untagged),
        "Whether manifests without tag, index and subject are kept or deleted.",
    ] = "keep"
    rules: Annotated[Rules, "The same as `gc.untagged` for the repositories of a pattern."] = ()
    limit_deletions: Annotated[
        Limit, "Maximum number of manifests and blobs that are deleted per second."
    ] = 0
    limit_rate: Annotated[
        Size, "Maximum number of bytes of blobs that are deleted per second. `0B`: no limit."
    ] = 0
    window: Annotated[
        Window, "Part of the day, in local time, in which the collector runs. Empty: always."
    ] = None

    @property
    def untagged_rules(self) -> UntaggedRules:
        """The rules for untagged manifests, with their default."""
        return UntaggedRules(self.untagged, self.rules)

    @property
    def touch_interval(self) -> float:
        """Seconds after a touch in which the same content needs no further touch."""
        return self.grace_period / 4

    def is_open(self, minute: int) -> bool:
        """Return whether the collector may work at this minute of the day."""
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= minute < end if begin < end else minute >= begin or minute < end
