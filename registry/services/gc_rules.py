"""By which rules the collector works."""

from dataclasses import dataclass, field

from registry.services.untagged import UntaggedRules


@dataclass(frozen=True, slots=True)
class GcRules:
    """`grace` in seconds; `objects` and `bytes` a second at the most, 0 without a limit. `window`:
    minutes since midnight, from and until, where it may work at certain times only.
    """

    grace: float = 86_400.0
    untagged: UntaggedRules = field(default_factory=UntaggedRules)
    objects: int = 0
    bytes: int = 0
    window: tuple[int, int] | None = None

    @property
    def ahead(self) -> float:
        """Seconds for which a touch needs no other."""
        return self.grace / 4

    def is_open(self, minute: int) -> bool:
        """Whether the collector may work at that minute of the day."""
        if self.window is None:
            return True
        begin, end = self.window
        return begin <= minute < end if begin < end else minute >= begin or minute < end
