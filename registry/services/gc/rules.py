"""Settings of the garbage collector."""

from dataclasses import dataclass, field

from registry.services.gc.untagged import UntaggedRules


@dataclass(frozen=True, slots=True)
class GcRules:
    """Settings of the garbage collector.

    `grace` is in seconds. `objects` and `bytes` are limits per second; 0 is no limit. `window` is
    the start and end of the daily collection window in minutes since midnight, or None.
    """

    grace: float = 86_400.0
    untagged: UntaggedRules = field(default_factory=UntaggedRules)
    objects: int = 0
    bytes: int = 0
    window: tuple[int, int] | None = None

    @property
    def touch_interval(self) -> float:
        """Seconds after a touch in which the same content needs no further touch."""
        return self.grace / 4

    def is_open(self, minute: int) -> bool:
        """Return whether the collector may work at this minute of the day."""
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= minute < end if begin < end else minute >= begin or minute < end
